"""Times dp_accounting and prv_accountant beside our accountant: the same work, the same machine, the same run.

    make bench-peers

or: python benches/peers/accountants.py PATH_TO_THE_ACCOUNTANT_BENCH

Ours is measured inside the bench's process (median of 15 after one that is not counted) and theirs inside this one, so
that nobody pays for a process start. Rounds alternate between the two sides and medians over the rounds are shown: where
other work disturbs the machine it disturbs both. A peer's calibration, which takes minutes, is timed once. Each side uses the cores it knows how to use.
"""

import json
import math
import statistics
import subprocess
import sys
import time

import dp_accounting
from dp_accounting import pld
from prv_accountant import PoissonSubsampledGaussianMechanism, PRVAccountant

ROUNDS = 3
DELTA = 3.95e-6
RECORDS = 25_000
# As in benches/accountant.rs: IMDb, expected batch, noise multiplier, steps.
SETTINGS = {"full": (1024, 0.69, 123), "quick": (128, 0.3694, 8)}
# Ours finds the noise multiplier to this fraction; dp_accounting's tolerance is absolute and set to the same.
PRECISION = 1e-4


def event(q, sigma, steps):
    step = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
    return dp_accounting.SelfComposedDpEvent(step, steps)


def dpacc(q, sigma, steps):
    return pld.PLDAccountant().compose(event(q, sigma, steps))


def dpacc_calibrate(q, sigma, steps):
    return dp_accounting.calibrate_dp_mechanism(
        pld.PLDAccountant, lambda s: event(q, s, steps), 8.0, DELTA, tol=PRECISION * sigma
    )


def prv_epsilon(q, sigma, steps):
    """The upper bound, with errors as opacus sets them: 0.01 in epsilon, a thousandth in delta."""
    accountant = PRVAccountant(
        [PoissonSubsampledGaussianMechanism(sampling_probability=q, noise_multiplier=sigma)],
        max_self_compositions=[steps],
        eps_error=0.01,
        delta_error=DELTA / 1000,
    )
    return accountant.compute_epsilon(DELTA, [steps])[2]


PEERS = {
    ("epsilon", "dp_accounting"): lambda *s: dpacc(*s).get_epsilon(DELTA),
    ("epsilon", "prv_accountant"): prv_epsilon,
    ("delta", "dp_accounting"): lambda *s: dpacc(*s).get_delta(8.0),
    ("calibrate", "dp_accounting"): dpacc_calibrate,
}


def ours(bench):
    """{"epsilon full": (seconds, value), …}"""
    out = subprocess.run([bench, "--json"], check=True, capture_output=True, text=True).stdout
    rows = (json.loads(line) for line in out.splitlines())
    return {row["name"]: (row["seconds"], row["value"]) for row in rows}


def timed(run, *arguments):
    begun = time.perf_counter()
    value = run(*arguments)
    return time.perf_counter() - begun, float(value)


def row(what, peer, profile, mine, theirs):
    name = f"{what} {profile}"
    seconds = statistics.median(round_[name][0] for round_ in mine)
    their_seconds = statistics.median(seconds for seconds, _ in theirs)
    value, their_value = mine[0][name][1], theirs[0][1]
    if not math.isclose(value, their_value, rel_tol=2e-2):
        sys.exit(f"{name}: {value} is not what {peer} finds, {their_value}: not the same work")
    print(
        f"{name:<16} {seconds * 1e3:>9.2f} {peer:<15} {their_seconds * 1e3:>10.2f} {their_seconds / seconds:>7.1f}x"
        f"   {value:>13.6g} {their_value:>13.6g}",
        flush=True,
    )


def main(bench):
    # What both import and compile on first use is not counted.
    prv_epsilon(0.01, 1.0, 10), dpacc(0.01, 1.0, 10).get_epsilon(DELTA)
    print(f"{'work':<16} {'ours ms':>9} {'peer':<15} {'peer ms':>10} {'ratio':>8}   {'our value':>13} {'peer value':>13}")
    for (what, peer), run in PEERS.items():
        rounds = 1 if what == "calibrate" else ROUNDS
        for profile, (batch, sigma, steps) in SETTINGS.items():
            mine, theirs = [], []
            for _ in range(rounds):
                mine.append(ours(bench))
                theirs.append(timed(run, batch / RECORDS, sigma, steps))
            row(what, peer, profile, mine, theirs)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit("name the accountant bench; `make bench-peers` builds it")
    main(sys.argv[1])
