"""Write a distilled set in its plain form, which takes no code of ours to read.

    python jobs/export.py results/quickstart/distilled/stage=3 --to plain
    python jobs/export.py s3://sets/stage=3 --reference s3://run/reference/t=3 --to /data/plain

A set stores the ids of real rows, soft labels, and what was learned on top. The plain form is
Parquet with the embeddings themselves (`embedding`, a tensor of fields x width), `label` (logits),
`anchor_<field>` (the ids), `source_stage` and `source_row`; it takes many times the room. Each of
the set's files becomes one, one after the other.
"""

import argparse
import sys

import diet_ray
from diet_ray.errors import UserError


def main(arguments: list[str] | None = None) -> None:
    """Export as the command line asks; a user's error ends it with its message, status 2."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("set", help="folder of a published set, a path or any URI")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="where to write, any URI")
    parser.add_argument(
        "--reference",
        metavar="FOLDER",
        help="of the reference model that its embeddings are those of; default: where it lay, seen "
        "from the set, when the set was distilled",
    )
    options = parser.parse_args(arguments)
    diet_ray.start_logging()
    try:
        diet_ray.export(options.set, options.to, options.reference)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
