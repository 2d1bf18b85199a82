"""torchvision's detectors of two stages, by goldens of its own."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen

from detjax import models
from detjax.models import two_stage
from detjax.models.two_stage import detector
from detjax.nn.images import NORMALIZED
from detjax.parity import certificate, goldens
from detjax.parity import detector_outputs as outputs
from detjax.parity.certificate import Certificate, Training
from detjax.parity.detector_inputs import Padded, draw_batch, pad
from detjax.parity.detector_outputs import Answers, Raw
from detjax.parity.goldens import Golden, joined, summary
from detjax.types import Inputs, Model
from detjax.weights import convert

# Our names of the models behind torchvision's.
MODELS = {
    "fasterrcnn_resnet50_fpn": "faster_rcnn_r50_fpn",
    "fasterrcnn_resnet50_fpn_v2": "faster_rcnn_r50_fpn_v2",
    "maskrcnn_resnet50_fpn": "mask_rcnn_r50_fpn",
    "maskrcnn_resnet50_fpn_v2": "mask_rcnn_r50_fpn_v2",
    "keypointrcnn_resnet50_fpn": "keypoint_rcnn_r50_fpn",
}
SOURCE = "torchvision"
ORIGINS = (SOURCE,)
LOSSES = {
    "loss_classifier": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "loss_keypoint": "keypoint",
    "loss_objectness": "rpn_class",
    "loss_rpn_box_reg": "rpn_box",
}
# In a golden's training the samplers take every candidate.
ALL = 1_000_000
# The original's weights here are random, its norms plain ones.
SETTINGS: dict[str, Any] = {
    "backbone": {"norm": "frozen", "norm_eps": 1e-5},
    "detect": {"pre_nms_top_k": ALL},
    "pixels": NORMALIZED,
}


def certify(golden: Golden) -> Certificate:
    """`golden` against detjax: weights, raw outputs, losses, gradients, detections.

    Raises ValueError where names or shapes do not fit.
    """
    facts, ours = golden.facts, _answers(golden)
    matched = outputs.matches(ours.found, ours.padded, facts["detections"])
    losses, gradients = certificate.training_errors(
        ours.training, facts["train"], LOSSES
    )
    return Certificate(
        golden.name,
        ours.parameters,
        facts["parameters"],
        outputs.output_errors(ours, matched, facts),
        losses,
        gradients,
        certificate.share(matched, ours.found.valid.sum(axis=1).tolist()),
        proposals=outputs.proposals_found(ours.raw.proposals, facts["outputs"]),
    )


def answers(golden: Golden) -> dict[str, Any]:
    """What a golden of this source holds, by our own code."""
    ours = _answers(golden)
    places = [np.flatnonzero(valid) for valid in ours.found.valid]
    raw = {k: summary(v) for k, v in outputs.raw_outputs(ours, places).items()}
    proposed = ours.raw.proposals
    for i, valid in enumerate(proposed.valid):
        some = proposed.boxes[i][valid]
        raw[f"proposals.{i}"] = {"shape": [*some.shape], "value": some.tolist()}
    detections = [
        {name: value.tolist() for name, value in found.items()}
        | {k: summary(v) for k, v in outputs.drawn(ours, i, places[i]).items()}
        for i, found in enumerate(outputs.detections(ours.found, ours.padded))
    ]
    return {
        "parameters": ours.parameters,
        "outputs": raw,
        "detections": detections,
        "train": {**golden.facts["train"], **ours.training.facts()},
    }


def shapes(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Shapes of the parameters and of the state of a golden's model."""
    images = pad(facts).inputs.images
    return jax.eval_shape(maker(facts)().init, jax.random.key(0), images)


def maker(facts: dict[str, Any]) -> Callable[..., Model]:
    """The constructor of a golden's model; it takes more keywords."""
    name = MODELS[facts["model"]]
    original = two_stage.ORIGINALS[name]
    normed = {
        stage: {"norm": "frozen"}
        for stage in ("fpn", "box", "mask")
        if getattr(original.get(stage), "norm", None)
    }
    stages = joined(joined(SETTINGS, normed), goldens.settings(facts))

    def make(**changes: Any) -> Model:
        return models.make(name, **joined(stages, changes))

    return make


def _answers(golden: Golden) -> Answers:
    facts, padded, make = golden.facts, pad(golden.facts), maker(golden.facts)
    model = make()
    params, state, _ = convert.load(
        golden.state_dict,
        *shapes(facts),
        source=SOURCE,
        classes=model.spec.outputs,
    )
    found = jax.device_get(jax.jit(model.predict)(params, state, padded.inputs))
    return Answers(
        certificate.size(params),
        padded,
        _raw(model, params, state, padded.inputs, found.boxes),
        found,
        _training(make, params, state, padded, facts["train"]["targets"]),
    )


def _training(make, params, state, padded: Padded, targets) -> Training:
    """Losses and gradients, every candidate being sampled.

    A first pass counts the positives, for whom alone masks and keypoints are learnt.
    """
    everything = {"roi": {"samples": ALL}, "rpn": {"samples": ALL}}
    batch = draw_batch(padded, targets)
    boxes_only = make(**everything, mask=None, keypoint=None)
    keys = [k for k in params["roi_heads"] if k.startswith("box_")]
    some = {**params, "roi_heads": {k: params["roi_heads"][k] for k in keys}}
    _, (_, metrics) = jax.jit(boxes_only.loss)(some, state, batch, jax.random.key(0))
    count = -(-int(metrics["positives"]) // 16) * 16
    stages = [k for k in ("mask", "keypoint") if f"{k}_head" in params["roi_heads"]]
    model = make(**everything, **{stage: {"samples": count} for stage in stages})
    return certificate.training(
        model, params, state, batch, names=LOSSES, source=SOURCE
    )


def _raw(model: Model, params, state, inputs: Inputs, boxes) -> Raw:
    def run(net, inputs, boxes):
        stages, outputs = net.stages, net(inputs.images)
        proposals = detector.proposals(net, outputs, inputs, train=False)

        def head(stage, apply, boxes):
            if stage is None:
                return None
            return apply(detector.read(net, outputs, boxes, stage.bins))

        logits, deltas = head(stages.box, net.boxes, proposals.boxes)
        masks = head(stages.mask, net.masks, boxes)
        keypoints = head(stages.keypoint, net.keypoints, boxes)
        return Raw(outputs, proposals, logits, deltas, masks, keypoints)

    variables = {"params": params, **state}
    made = jax.jit(linen.apply(run, model.net))(variables, inputs, boxes)
    return jax.device_get(made)
