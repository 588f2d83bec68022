"""Which features each member of the ensemble sees."""

from __future__ import annotations

import numpy as np

from airloop.training.tabm import features_seen

SIZES = [3, 1, 4, 1, 5, 2, 6, 3, 5, 8]


def test_members_see_evenly_more_features_and_the_last_sees_all() -> None:
    seen = features_seen(6, 0.5, SIZES)
    assert seen.shape == (6, sum(SIZES))
    starts = np.cumsum([0, *SIZES[:-1]])
    by_feature = seen[:, starts]
    assert [int((row > 0).sum()) for row in by_feature] == [5, 6, 7, 8, 9, 10]
    # All columns of a feature are seen or none, and what is seen counts for what is not.
    np.testing.assert_array_equal(np.repeat(by_feature, SIZES, axis=1), seen)
    np.testing.assert_allclose(by_feature.sum(axis=1), len(SIZES))
    np.testing.assert_array_equal(seen[-1], 1)


def test_the_same_members_see_the_same_again() -> None:
    np.testing.assert_array_equal(features_seen(4, 0.3, SIZES), features_seen(4, 0.3, SIZES))


def test_one_member_sees_all_and_every_member_something() -> None:
    np.testing.assert_array_equal(features_seen(1, 0.1, SIZES), np.ones((1, sum(SIZES))))
    assert (features_seen(8, 0.01, [1, 1]).sum(axis=1) > 0).all()


def test_no_feature_is_left_to_few_members() -> None:
    seen = features_seen(16, 0.5, [1] * 60)
    seen_by = (seen > 0).sum(axis=0)
    assert seen_by.max() - seen_by.min() <= 2
    assert not (seen[0] == seen[1]).all()
