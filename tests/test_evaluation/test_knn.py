# Copyright (c) greenmim authors. All rights reserved.
"""Weighted k-NN against a loop, and against scikit-learn's."""
import math

import numpy as np
import pytest
import torch

from greenmim.evaluation import knn, knn_predict


@pytest.fixture
def data():
    """Features of 5 overlapping classes, 60 labelled and 23 to classify."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (60, ), generator=generator)
    bank = centres[labels] + torch.randn(
        60, 8, generator=generator, dtype=torch.float64)
    queries = centres[torch.arange(23) % 5] + torch.randn(
        23, 8, generator=generator, dtype=torch.float64)
    return bank, labels, queries


def slow_knn(bank, labels, queries, k, temperature, num_classes):
    """One query, one neighbour at a time."""
    bank, labels, queries = bank.numpy(), labels.numpy(), queries.numpy()
    scores = np.zeros((len(queries), num_classes))
    for row, query in zip(scores, queries):
        similarity = [
            np.dot(query, image) / math.sqrt(np.dot(query, query)) /
            math.sqrt(np.dot(image, image)) for image in bank
        ]
        for i in sorted(range(len(bank)), key=lambda i: -similarity[i])[:k]:
            row[labels[i]] += math.exp(similarity[i] / temperature)
        row /= row.sum()
    return scores


@pytest.mark.parametrize('k', [1, 2, 20, 60])
@pytest.mark.parametrize('temperature', [0.07, 1.])
def test_equals_a_loop(data, k, temperature):
    scores = knn_predict(*data, k=k, temperature=temperature, num_classes=7)
    expected = slow_knn(*data, k, temperature, 7)
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores.numpy(), expected, rtol=0, atol=1e-12)
    assert (scores[:, 5:] == 0).all()


@pytest.mark.parametrize('limit', [1, 60 * 4, 60 * 23])
def test_chunks_change_nothing(data, monkeypatch, limit):
    bank, labels, queries = data
    whole = knn_predict(bank, labels, queries)
    monkeypatch.setattr(knn, 'MAX_SIMILARITIES', limit)
    torch.testing.assert_close(
        knn_predict(bank, labels, queries), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize('k', [1, 5, 20])
@pytest.mark.parametrize('temperature', [0.07, 1e6])
def test_agrees_with_scikit_learn(data, k, temperature):
    """At a high temperature the votes are equal."""
    neighbors = pytest.importorskip('sklearn.neighbors')
    bank, labels, queries = data

    def weight(distance):
        return np.exp((1 - distance) / temperature)

    model = neighbors.KNeighborsClassifier(
        k,
        weights=weight if temperature < 1 else 'uniform',
        metric='cosine',
        algorithm='brute')
    model.fit(bank.numpy(), labels.numpy())
    scores = knn_predict(bank, labels, queries, k, temperature)
    np.testing.assert_allclose(
        scores.numpy(), model.predict_proba(queries.numpy()), atol=1e-5)


def test_low_temperature_does_not_overflow(data):
    bank, labels, queries = data
    sharp = knn_predict(
        bank.float(), labels, queries.float(), temperature=1e-4)
    nearest = knn_predict(bank, labels, queries, k=1)
    assert sharp.isfinite().all()
    assert (sharp.argmax(1) == nearest.argmax(1)).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_features_vote_in_single_precision(data, dtype):
    bank, labels, queries = data
    scores = knn_predict(bank.to(dtype), labels, queries.to(dtype))
    assert scores.dtype == torch.float32
    expected = slow_knn(
        bank.to(dtype).double(), labels,
        queries.to(dtype).double(), 20, 0.07, 5)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize('change, message', [
    (dict(bank=torch.ones(60, 9)), r'\(60, 9\).*same model'),
    (dict(queries=torch.ones(23)), r'\(Q, C\), got'),
    (dict(labels=torch.zeros(59, dtype=torch.long)), r'60 integers'),
    (dict(labels=torch.zeros(60)), r'integers.*torch.float32'),
    (dict(labels=torch.full((60, ), -1)), r'from 0 to .*got -1 to -1'),
    (dict(num_classes=3), r'num_classes - 1 = 2, got 0 to 4'),
    (dict(k=0), r'k from 1 to the 60 labelled images, got 0'),
    (dict(k=61), r'got 61'),
    (dict(temperature=0.), r'temperature above 0, got 0.0'),
    (dict(temperature=math.nan), r'got nan'),
    (dict(queries=torch.full((2, 8), math.nan)), r'finite features'),
])  # yapf: disable
def test_bad_input_is_refused(data, change, message):
    bank, labels, queries = data
    good = dict(bank=bank, labels=labels, queries=queries)
    with pytest.raises(ValueError, match=message):
        knn_predict(**{**good, **change})
