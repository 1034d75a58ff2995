"""What a table's document says of figures in general, by the family of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.families import Family
from training.metrics.content import CONTENT_CEILING, DETAIL_FLOOR

NOISE = "≈"
_STATISTICS = (
    "Mean ± sample standard deviation over {seeds}. **Bold**: the best mean of a column; "
    f"{NOISE}: can't be told from it. Two rows can't be told apart where the difference of their means is at most t "
    "standard errors of it (Student's t test of two samples, pooled variance, two-sided 5 %; not corrected for the "
    'number of pairs); a change within that is marked "noise". With one seed there is no such estimate, and none is '
    "made. "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Of one family."""

    nothing: str
    """The row of doing nothing."""
    tested: str
    """One of what is tested."""
    legend: str
    costs: str
    small: str
    """Of what a profile's figures rest on that is not the paper's."""
    others: str
    """How the published figures were judged."""


WORDS: Mapping[Family, Words] = {
    "motion": Words(
        nothing="copy-source",
        tested="test video",
        legend=_STATISTICS + "copy-source: the score of showing the source unmoved. All figures are better when lower.",
        costs=(
            "networks: parameters of all but discriminator and AVD. step: median time of a training step, which "
            "depends on the machine and on what else it did. memory: the most that the training process held. pairs: "
            "of frames, seen in training, not counting the second stage; training: both stages."
        ),
        small="a handful of videos",
        others="with detectors of their own",
    ),
    "style": Words(
        nothing="untouched photos",
        tested="test photo",
        legend=_STATISTICS
        + "untouched photos: the score of drawing nothing. FID and KID compare the drawings with the style pictures "
        "and are better when lower, IS when higher; a row that lost content or detail is the best in none of them. Few "
        "pictures make FID greater, so it compares with that of as many pictures alone. content: how far a drawing's "
        "content is from its photo's, 0 the same, 1 as unlike as another "
        f"photo; above {CONTENT_CEILING:g} it is lost. detail: the drawings' edges as a share of the photos'; below "
        f"{DETAIL_FLOOR:g} they are blurred. Between its bounds neither is better for being more or less. The network "
        "behind a figure stands beside its name: figures of different networks do not compare. image: one drawing of "
        "256 px alone in its batch, in one process: median time, and the most memory that the tensors of the "
        "computation held at once, the networks' weights apart. generator: its parameters; all networks: with critic, "
        "and with the way back where there is one.",
        costs=(
            "generator, others: parameters. step: median time of a training step, which depends on the machine and on "
            "what else it did. memory: the most that the training process held. photos: seen in training."
        ),
        small="a handful of photos",
        others="on other photos and style pictures, by another network than the one named in a column's heading",
    ),
}
