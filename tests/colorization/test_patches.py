import numpy as np

from smai_lib.colorization.patches import photo_patches


def test_no_pixel_is_in_two_splits():
    # every 16 x 16 cell has a colour of its own, which averaging over less than a cell keeps
    row, column = np.mgrid[0:512, 0:768] // 16
    photograph = np.stack([row, column, np.zeros_like(row)], 2).astype(np.uint8) * 4
    seen = []
    for split in photo_patches([photograph]):
        assert split.shape[1:] == (3, 32, 32)
        cells = split.permute(0, 2, 3, 1)[:, ::16, ::16]  # a pixel of every cell at scale 32
        at_scale_32 = (cells[:, 1, 1] - cells[:, 0, 0])[:, :2].eq(4).all(1)
        seen.append({tuple(cell) for cell in cells[at_scale_32].reshape(-1, 3).tolist()})
    train, validation, test = seen
    assert not (train & validation or train & test or validation & test)
    assert len(train) > 6 * len(test) and len(validation) == len(test) == 2 * 64
