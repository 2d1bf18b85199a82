"""Evaluate the newest checkpoint: python scripts/evaluate.py --workdir=DIR."""

from detjax import cli, run

WORKDIR, BEST = cli.workdir_flag(), cli.best_flag()


def main(_):
    metrics = run.evaluate(WORKDIR.value, best=BEST.value)
    print("\n".join(f"{name:24} {value:.4f}" for name, value in metrics.items()))


if __name__ == "__main__":
    cli.launch(main)
