"""The weights of a run of a darknet model as a file that darknet reads."""

import pathlib

from detjax import files, predict
from detjax.errors import UserError
from detjax.models import ema
from detjax.models.darknet import seen
from detjax.models.darknet.net import Net
from detjax.weights import darknet


def export(
    workdir: str | pathlib.Path, out: str | pathlib.Path, best: bool = False
) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes the newest weights of a run, or the `best`, and the cfg beside them.

    Of weights that were imported the file has the very bytes. Of a run with averaged
    weights (`models.ema`) these are written. Returns both paths. Raises UserError for
    other models than darknet's, and if a file is there already.
    """
    trained = predict.load(workdir, best)
    net = trained.model.net
    if not isinstance(net, Net):
        raise UserError(
            f"{workdir} holds a {trained.config['model']['name']}; darknet, "
            "darknet_classifier and the YOLO models have files of darknet"
        )
    path = pathlib.Path(out)
    paths = path, path.with_suffix(".cfg")
    if paths[0] == paths[1]:
        raise UserError(f"{path} is where the cfg goes; call the weights .weights")
    for each in paths:
        if each.exists():
            raise UserError(f"{each} is there already; choose another --out")
    params, state = ema.weights(trained.params, trained.state)
    # The average of a count is no count.
    state = {**state, seen.NAME: ema.own(trained.state)[seen.NAME]}
    files.write_bytes(path, darknet.exported(params, state))
    files.write_text(paths[1], net.cfg.written())
    return paths
