"""Plots show the numbers that they are given, few or many, and break no run."""

import numpy as np
import pytest

from detjax.plots import anchors, metrics, shapes, style, training


def rows(steps=40, every=10):
    """A log: losses at each step, an evaluation now and then."""
    made = []
    for step in range(1, steps + 1):
        made.append(
            {
                "step": step,
                "box": 3 / step,
                "class": 2.0,
                "grad_norm": 5.0,
                "loss": 2 + 3 / step,
                "lr": 1e-3,
                "images/s": 30.5,
                "objects": 12.0,
                "compilations": 0,
            }
        )
        if step % every == 0:
            made.append(
                {
                    "step": step,
                    "bbox/AP": step / steps,
                    "bbox/AP50": -1.0,
                    "bbox/AP/cat": 0.3,
                    "top1": 0.5,
                    "top1/cat": 0.4,
                    "val/loss": 3.0,
                }
            )
    return made


def title(axis):
    """Where it is depends on whether the looks are on."""
    return axis.get_title(loc="left") or axis.get_title()


def test_panels_are_losses_metrics_rate_and_speed():
    found = training.panels_of(rows())
    assert list(found) == [
        *("loss (sum)", "box", "class", "bbox", "metrics"),
        *("learning rate", "grad norm", "images/s"),
    ]
    assert found["loss (sum)"] == ["loss", "val/loss"]
    assert found["bbox"] == ["bbox/AP", "bbox/AP50"] and found["metrics"] == ["top1"]
    assert not training.panels_of([])


def test_validation_losses_of_their_own_have_a_panel():
    found = training.panels_of([*rows(), {"step": 9, "val/box": 1.0, "val/mask": 2.0}])
    assert found["box"] == ["box", "val/box"] and found["val/mask"] == ["val/mask"]


def test_curves_have_the_numbers_of_the_log():
    figure = training.curves(rows())
    axes = {
        axis.get_title(loc="left") or axis.get_title(): axis for axis in figure.axes
    }
    lines = axes["loss (sum)"].lines
    steps, values = lines[0].get_data()
    np.testing.assert_array_equal(steps, np.arange(1, 41))
    np.testing.assert_allclose(values, 2 + 3 / np.arange(1, 41))
    assert [line.get_label() for line in lines] == ["training", "validation"]
    np.testing.assert_array_equal(lines[1].get_xdata(), [10, 20, 30, 40])
    # A metric that is not defined, -1, is not drawn.
    assert len(axes["bbox"].lines) == 1


def test_thousands_of_steps_are_means_of_neighbours():
    made = [{"step": i, "loss": float(i % 2)} for i in range(30_000)]
    made.append({"step": 30_000, "loss": float("nan")})
    steps, values = training.series(made, "loss")
    assert len(steps) <= training.MOST_POINTS
    np.testing.assert_allclose(values, 0.5, atol=0.03)
    assert (np.diff(steps) > 0).all()


def test_a_wide_range_is_logarithmic():
    made = [{"step": i, "loss": 10.0 ** -(i % 4)} for i in range(20)]
    assert training.curves(made).axes[0].get_yscale() == "log"
    made = [{"step": i, "loss": 1.0 + i / 50} for i in range(20)]
    assert training.curves(made).axes[0].get_yscale() == "linear"


def curves_of(classes):
    rng = np.random.default_rng(0)
    precision = np.sort(rng.random((10, 101, classes)), axis=1)[:, ::-1]
    counts = rng.integers(1, 99, classes)
    return np.linspace(0, 1, 101), precision, counts, [f"c{i}" for i in range(classes)]


@pytest.mark.parametrize(("classes", "lines"), [(1, 1), (3, 4), (10, 11), (80, 11)])
def test_of_many_classes_ten_lines_are_drawn_and_the_mean(classes, lines):
    recalls, precision, counts, names = curves_of(classes)
    figure = metrics.precision_recall(recalls, precision, counts, names)
    left, right = figure.axes
    assert len(left.lines) == lines and len(right.lines) == 3
    mean = precision[0].mean(axis=1)
    np.testing.assert_allclose(left.lines[-1].get_ydata(), mean)
    np.testing.assert_allclose(right.lines[0].get_ydata(), mean)
    if classes == 80:
        first = counts.argmax()
        np.testing.assert_allclose(left.lines[0].get_ydata(), precision[0, :, first])
        order = np.argsort(-counts, kind="stable")[9:]
        np.testing.assert_allclose(
            left.lines[9].get_ydata(), precision[0][:, order].mean(axis=1)
        )


def test_f1_names_the_best_confidence():
    confidences = np.linspace(0, 1, 11)
    values = np.stack([1 - abs(confidences - 0.4), 1 - abs(confidences - 0.6)])
    values = np.append(values, np.full((1, 11), np.nan), axis=0)
    figure = metrics.f1(confidences, values, np.array([3, 4, 0]), ["a", "b", "c"])
    (axis,) = figure.axes
    assert "best mean 0.90 from a score of 0.40" in title(axis)
    none = metrics.f1(confidences, values[2:], np.array([0]), ["c"])
    assert not none.axes[0].lines


def test_the_most_confused_classes_are_shown():
    matrix = np.diag(np.full(50, 90))
    matrix[7, 31], matrix[31, 7], matrix[44, 2] = 30, 3, 20
    assert metrics.most_confused(matrix, 4).tolist() == [2, 7, 31, 44]
    # Then those that are missed or made up, which the last row and column count.
    more = np.zeros((51, 51), int)
    more[:50, :50] = matrix
    more[12, 50], more[50, 19] = 8, 9
    assert metrics.most_confused(more, 6, 1).tolist() == [2, 7, 12, 19, 31, 44, 50]
    assert metrics.most_confused(matrix[:5, :5], 10).tolist() == [*range(5)]


def test_a_matrix_has_its_numbers_written_in_where_they_can_be_read():
    names = [f"class {i}" for i in range(60)]
    small = np.array([[5, 0, 1], [2, 7, 0], [3, 0, 0]])
    figure = metrics.confusion(
        small, [*names[:2], "background"], [*names[:2], "missed"], "title"
    )
    assert [t.get_text() for t in figure.axes[0].texts] == ["5", "1", "2", "7", "3"]
    share = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(share[0].filled(-1), [5 / 6, 0, 1 / 6])
    large = np.random.default_rng(0).integers(0, 9, (60, 60))
    figure = metrics.confusion(large, names, names, "title")
    assert not figure.axes[0].texts
    assert figure.axes[0].images[0].get_array().shape == (40, 40)
    assert "40 most confused of 60" in figure.get_suptitle()


def test_all_plots_can_be_written_with_any_names(tmp_path):
    names = ["price_$5_$x^^", "日本\n", "x" * 300]
    recalls, precision, counts, _ = curves_of(3)
    matrix = np.arange(9).reshape(3, 3)
    sides = np.exp(np.random.default_rng(0).normal(3, 1, (50, 2)))
    sizes = np.array([[480, 640], [100, 90]])
    makers = {
        "pr.png": lambda: metrics.precision_recall(recalls, precision, counts, names),
        "matrix.png": lambda: metrics.confusion(matrix, names, names, names[0]),
        "anchors.png": lambda: anchors.anchors(
            sides, [0.5, 0.6], [0.5, 0.55], sides[:3], sides[3:]
        ),
        "sizes.png": lambda: shapes.sizes(sizes, counts, names, sides, counts),
        "pictures.png": lambda: shapes.sizes(sizes, counts, names, None, counts, "few"),
        "curves.png": lambda: training.curves(rows()),
        "empty.png": lambda: training.curves([]),
    }
    assert style.save_all(tmp_path, makers) == list(makers)
    for name in makers:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_a_warning(tmp_path, capsys):
    def broken():
        raise ZeroDivisionError("no numbers")

    done = style.save_all(
        tmp_path, {"a.png": broken, "b.png": lambda: style.figure(1, 1)}
    )
    assert done == ["b.png"]
    said = capsys.readouterr().err
    assert said.startswith("warning: ") and "a.png is not drawn" in said
    assert [p.name for p in tmp_path.iterdir()] == ["b.png"]
    assert not style.save_all(
        tmp_path / "absent", {"b.png": lambda: style.figure(1, 1)}
    )


def test_histograms_count_what_there_is():
    counts = np.arange(100)
    names = [f"c{i}" for i in counts]
    sides = np.exp(np.random.default_rng(0).normal(3, 1, (500, 2)))
    figure = shapes.sizes(np.full((9, 2), 64), counts, names, sides, counts % 7)
    bars, pictures, each, _, roots, ratios = figure.axes
    assert len(bars.patches) == shapes.MOST_BARS
    assert "all 64 x 64" in title(pictures)
    assert sum(p.get_height() for p in each.patches) == 100
    for axis in (roots, ratios):
        assert sum(p.get_height() for p in axis.patches) == 500
