"""Train: python scripts/train.py --config=configs/quickstart.py --workdir=DIR."""

from detjax import cli, experiment

CONFIG, WORKDIR = cli.config_flag(), cli.workdir_flag()


def main(_):
    metrics = experiment.run(CONFIG.value, WORKDIR.value)
    print("\n".join(f"{name:24} {value:.4f}" for name, value in metrics.items()))


if __name__ == "__main__":
    cli.run(main)
