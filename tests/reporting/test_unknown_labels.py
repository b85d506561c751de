"""The headline of labels that are known in part counts the images that its share is of."""

from __future__ import annotations

from pathlib import Path

from msmae.reporting.headline import came_out
from msmae.reporting.run_files import read_run_files
from msmae.reporting.wording import percentage
from saved_run import make_predictions, write_run


def test_every_label_right_is_counted_among_the_images_of_which_all_labels_are_known(tmp_path: Path) -> None:
    frame = make_predictions(multilabel=True)
    test = frame.index[frame["split"] == "test"]
    right = (frame["label"] == frame["predicted"])[test]
    hidden = test[: len(test) // 2]
    for row in hidden:  # one label of each is not known
        pieces = {*frame.at[row, "label"].split(";"), "?normal"} - {"", "normal"}
        frame.at[row, "label"] = ";".join(sorted(pieces)) + (";" if len(pieces) == 1 else "")
    said = came_out(read_run_files(write_run(tmp_path / "run", frame, multilabel=True)))
    known = len(test) - len(hidden)
    assert f"{len(test)} test images" in said
    assert f"All labels are known of {known}; {right.drop(hidden).sum()} of these" in said
    (tmp_path / "run" / "predictions.csv").unlink()
    said = came_out(read_run_files(tmp_path / "run"))
    assert percentage(right.drop(hidden).mean()) in said
    assert "those whose labels are all known" in said
