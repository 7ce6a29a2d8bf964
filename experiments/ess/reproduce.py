"""CEvNS events a year at the European Spallation Source, as published and as cevjax has them.

python experiments/ess/reproduce.py
"""

from __future__ import annotations

import cevjax
from cevjax.report import markdown

PUBLISHED = {"csi": 8405, "xe": 7770, "ge": 1610, "si": 80, "ar": 1380, "c3f8": 515}  # arXiv:1911.00762


def events(name: str, couplings: str = "2023") -> float:
    like = cevjax.Likelihood([cevjax.load(name)], cevjax.StandardModel(couplings=couplings))
    return float(like.expected(like.nominal())[name]["cevns"].sum())


def main() -> None:
    cevjax.enable_compilation_cache()
    rows = []
    for material, published in PUBLISHED.items():
        name = f"ess-{material}"
        ours, tree = events(name), events(name, "tree")
        difference = f"{100 * (ours / published - 1):+.1f} %"
        rows.append((f"`{name}`", str(published), f"{ours:.4g}", difference, f"{tree:.4g}"))
    print(markdown(("detector", "published", "cevjax", "difference", "tree-level couplings"), rows))


if __name__ == "__main__":
    main()
