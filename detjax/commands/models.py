"""The classifiers and backbones, or the layers of one.

    [NAME]

Without a name prints a table: parameters, billions of multiply-accumulates for one
image of the published size, that size, published top-1 accuracy on ImageNet and whose
it is, the paper, and whether goldens of the original certify it. With the name of one
prints its layers. `--markdown` prints tables for a README.
"""

from absl import flags

from detjax import cli, describe_models
from detjax.errors import UserError

MARKDOWN = flags.DEFINE_bool("markdown", False, "Print Markdown.")


def main() -> None:
    cli.launch(_models, __doc__)


def _models(names: list[str]) -> None:
    if len(names) > 1:
        raise UserError("give one name of a classifier, or none for the table of all")
    rows = describe_models.of(names[0]) if names else describe_models.rows()
    print(describe_models.text(rows, markdown=MARKDOWN.value))
