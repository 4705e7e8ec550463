"""A classification network on real data: scikit-learn's digits (1 797 images of 8 by 8, ten classes), a hidden layer of 64, by mini-batches.

    python benchmarks/digits.py [splits]

Each seeded split keeps a fifth of the images of each class for the test; a tenth of the others is held out and decides the epoch. Printed are
the accuracy on the test rows with its binomial standard error, their mean negative log-likelihood, and the expected calibration error:
Σ (rows of a bin/rows)·|accuracy − mean confidence| over ten equal bins of the confidence (Guo, Pleiss, Sun & Weinberger 2017, ICML).
Beside it stands what this error is expected to be for probabilities that are right, since it is not zero in a finite sample: the mean over
simulated classes drawn from the predicted probabilities. Last come the standard errors of the last layer of the last split.
"""

from __future__ import annotations

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmle as jm

HIDDEN, CLASSES, BINS = 64, 10, 10
WANTED = 0.965


def logits(params: dict, images: jax.Array) -> jax.Array:
    return jax.nn.relu(images @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def categorical(params: dict, data: dict) -> jax.Array:
    scores = logits(params, data["images"])
    return jnp.take_along_axis(scores, data["digit"][:, None], axis=1)[:, 0] - jax.nn.logsumexp(
        scores, axis=1
    )


def start(rng: np.random.Generator, pixels: int) -> dict:
    return {
        "w1": rng.normal(size=(pixels, HIDDEN)) * np.sqrt(2 / pixels), "b1": np.zeros(HIDDEN),
        "w2": rng.normal(size=(HIDDEN, CLASSES)) * np.sqrt(1 / HIDDEN), "b2": np.zeros(CLASSES),
    }  # fmt: skip


def calibration_error(probability: np.ndarray, digit: np.ndarray) -> float:
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == digit
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(
        sum(abs(np.sum(right[place == j]) - np.sum(confidence[place == j])) for j in range(BINS))
        / len(digit)
    )


def expected_error(
    probability: np.ndarray, rng: np.random.Generator, draws: int = 500
) -> tuple[float, float]:
    """Mean and 95 % quantile of the calibration error where the probabilities are right."""
    cumulative = np.cumsum(probability, axis=1)
    cumulative /= cumulative[:, -1:]
    found = [
        calibration_error(
            probability, np.argmax(rng.random(len(probability))[:, None] < cumulative, axis=1)
        )
        for _ in range(draws)
    ]
    return float(np.mean(found)), float(np.quantile(found, 0.95))


def last_layer(images: np.ndarray, digit: np.ndarray, params: dict) -> None:
    """Standard errors of the last layer at the end of a climb, under a ridge: without one ten classes are not identified, and separated."""
    begun = time.perf_counter()
    found = jm.fit_stochastic(
        jm.penalize(categorical, jm.ridge(1.0)), params, {"images": images, "digit": digit}, optimizer=optax.sgd(0.0), batch_size=64, epochs=0,
        dtype="float32", polish="lbfgs", polish_over=("w2", "b2"), vcov="observed",
    ).fit  # fmt: skip
    errors = np.sqrt(np.diag(found.vcov))
    print(
        f"last layer under ridge(1): {'converged' if found.converged else found.status}, {len(errors)} standard errors from {errors.min():.3f} "
        f"to {errors.max():.3f}, {time.perf_counter() - begun:.1f} s"
    )


def main() -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, digit = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32)
    splits = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    optimizer = optax.adamw(3e-3, weight_decay=1e-2)
    accuracies = []
    for seed in range(splits):
        x, x_test, y, y_test = train_test_split(
            images, digit, test_size=0.2, random_state=seed, stratify=digit
        )
        begun = time.perf_counter()
        found = jm.fit_stochastic(
            categorical, start(np.random.default_rng(seed), x.shape[1]), {"images": x, "digit": y}, optimizer=optimizer, batch_size=64, epochs=100,
            key=seed, held_out=0.1, patience=15, dtype="float32",
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        probability = np.array(
            jax.nn.softmax(
                logits(jax.tree.map(jnp.asarray, found.params), jnp.asarray(x_test)), axis=1
            ),
            float,
        )
        accuracy = float(np.mean(probability.argmax(axis=1) == y_test))
        loss = float(-np.mean(np.log(probability[np.arange(len(y_test)), y_test])))
        expected, limit = expected_error(probability, np.random.default_rng(seed))
        accuracies.append(accuracy)
        print(
            f"split {seed}: accuracy {accuracy:.4f} (SE {np.sqrt(accuracy * (1 - accuracy) / len(y_test)):.4f}), mean NLL {loss:.4f}, "
            f"calibration error {calibration_error(probability, y_test):.4f} (of right probabilities {expected:.4f}, 95 % below {limit:.4f}), "
            f"best epoch {found.best_epoch} of {found.epochs}, {seconds:.1f} s"
        )
    mean = float(np.mean(accuracies))
    error = float(np.sqrt(mean * (1 - mean) / (len(y_test) * splits)))
    last_layer(x, y, found.params)
    print(
        f"mean accuracy over {splits} splits {mean:.4f} (binomial SE {error:.4f}); wanted {WANTED}: {'met' if mean >= WANTED else 'NOT met'}"
    )


if __name__ == "__main__":
    main()
