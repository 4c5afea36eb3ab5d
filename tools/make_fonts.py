"""Make the two fonts that drawings use: `python -m tools.make_fonts DIR` (needs fonttools).

DIR holds LiberationSans-Regular.ttf and LiberationSans-Bold.ttf (Debian: fonts-liberation). Only Latin
letters, arrows and a few signs are kept. The licence of a changed font asks for a name of its own; the widths
stay those of Arial and Helvetica, so an SVG laid out with it fits in any viewer.
"""

import sys
from pathlib import Path

import graphs
from graphs.draw.engine import FONT

_KEPT = [*range(0x20, 0x7F), *range(0xA0, 0x180), *map(ord, "–—‘’“”…·•×←↑→↓−≤≥■□▲▶▼◆○●✓✗")]


def main(argv: list[str]) -> int:
    """Write the fonts beside the package's other data."""
    if len(argv) != 1:
        print("usage: python -m tools.make_fonts DIR", file=sys.stderr)
        return 2
    from fontTools import subset, ttLib

    target = Path(graphs.__file__).parent / "data" / "fonts"
    for style in ("Regular", "Bold"):
        font = ttLib.TTFont(Path(argv[0]) / f"LiberationSans-{style}.ttf", recalcTimestamp=False)
        options = subset.Options(hinting=False, name_IDs=[0, 1, 2, 3, 4, 5, 6, 13, 14])
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=_KEPT)
        subsetter.subset(font)
        names = font["name"]
        for record in list(names.names):
            if record.nameID in (1, 3, 4, 6):
                text = {1: FONT, 6: f"{FONT.replace(' ', '')}-{style}"}.get(record.nameID, f"{FONT} {style}")
                names.setName(text, record.nameID, record.platformID, record.platEncID, record.langID)
        path = target / f"{FONT.replace(' ', '')}-{style}.ttf"
        font.save(path)
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
