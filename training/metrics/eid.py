"""EID: L1, AKD and AED in one figure, as "Dual-Channel Fusion" tabulates them.

The paper prints all three in percent and says only that EID "applies weighted processing to the first three"; its four
printed rows are met to 0.005 by EID = L1 + 0.5 AKD + 0.5 AED. It does not say of what the percentages are. Here (our
reading, the only one in which a percentage means something for each):

- L1: of the range from black to white, 100 times the mean absolute difference of images in [0, 1];
- AKD: of the frame's side, 100 / 256 times the distance in pixels at 256 x 256;
- AED: 100 times the mean squared distance of embeddings, whose scale is the network's (dlib's are about 1.4 long).

So an EID measured here orders the rows of one table; set beside a printed one it says nothing, all the more as the
paper names none of its detectors. (Its abstract also swaps AKD and AED: the 18.9 % better AED there is the table's AKD.
Both weigh the same in EID.)
"""

from __future__ import annotations

from training.metrics.akd_mkr import FRAME_PX

AKD_WEIGHT, AED_WEIGHT = 0.5, 0.5


def eid(*, l1_percent: float, akd_percent: float, aed_percent: float) -> float:
    """The weighted sum, in percent.

    Args:
        l1_percent: L1, in percent.
        akd_percent: AKD, in percent.
        aed_percent: AED, in percent.
    """
    return l1_percent + AKD_WEIGHT * akd_percent + AED_WEIGHT * aed_percent


def eid_of(*, l1: float, akd_px: float, aed: float) -> float:
    """EID out of the three metrics in their own units.

    Args:
        l1: of images in [0, 1].
        akd_px: in pixels of frames of 256 x 256.
        aed: mean squared distance of embeddings.

    Returns:
        Percent, as this module's text says.
    """
    return eid(l1_percent=100 * l1, akd_percent=100 * akd_px / FRAME_PX, aed_percent=100 * aed)
