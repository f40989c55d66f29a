"""Prints the table REFERENCE of test_accounting.py; needs numpy and dp-accounting 0.6.0 only, not fedmeta.

python -m venv reference && reference/bin/pip install dp-accounting==0.6.0
reference/bin/python tests/fedmeta/privacy/reference.py
"""

SETTINGS = [
    ("poisson", z, q, steps, delta)
    for z, q, steps, delta in [
        (1.0, 1.0, 1, 1e-5), (1.0, 0.01, 1000, 1e-5), (2.0, 0.05, 500, 1e-5), (0.7, 0.005, 2000, 1e-5),
        (4.0, 0.1, 1000, 1e-6), (1.5, 0.02, 300, 1e-5), (0.9, 0.001, 10000, 1e-6), (10.0, 0.5, 200, 1e-5),
        (3.0, 1.0, 20, 1e-5), (20.0, 1.0, 500, 1e-3), (0.8, 0.05, 100, 1e-4), (1.1, 0.25, 50, 1e-5),
        (6.0, 0.2, 3000, 1e-5), (0.5, 0.01, 100, 1e-5), (2.5, 0.3, 10, 1e-8), (1.0, 0.1, 1, 1e-5),
        (1.2, 0.004, 5000, 1e-5), (5.0, 0.9, 40, 1e-5),
    ]
] + [
    ("without-replacement", z, (n, m), steps, delta)
    for z, n, m, steps, delta in [
        (2.0, 1200, 32, 2000, 1e-4), (4.0, 100, 10, 100, 1e-3), (8.0, 1000, 50, 500, 1e-5), (3.0, 50, 50, 10, 1e-3),
        (10.0, 20, 5, 200, 1e-3), (2.0, 10000, 10, 1000, 1e-6), (30.0, 200, 100, 1000, 1e-4),
    ]
] + [
    ("truncated-poisson", 1.0, (1000, 0.05, cap), 200, 1e-5) for cap in (75, 60, 50)
]  # fmt: skip


def main() -> None:
    import dp_accounting
    from dp_accounting import pld, rdp

    relation = dp_accounting.NeighboringRelation
    for kind, z, shape, steps, delta in SETTINGS:
        if kind == "poisson":
            accountant = pld.PLDAccountant(relation.ADD_OR_REMOVE_ONE)
            event = dp_accounting.PoissonSampledDpEvent(shape, dp_accounting.GaussianDpEvent(z))
        elif kind == "truncated-poisson":
            accountant = pld.PLDAccountant(relation.ADD_OR_REMOVE_ONE)
            event = dp_accounting.dp_event.TruncatedSubsampledGaussianDpEvent(*shape, z)
        else:
            # Replacing one unit moves a sum of clipped contributions by 2 C.
            accountant = rdp.RdpAccountant(None, relation.REPLACE_ONE)
            event = dp_accounting.SampledWithoutReplacementDpEvent(*shape, dp_accounting.GaussianDpEvent(z / 2))
        accountant.compose(event, steps)
        print(f"    ({kind!r}, {z!r}, {shape!r}, {steps!r}, {delta!r}, {accountant.get_epsilon(delta):.6f}),")


if __name__ == "__main__":
    main()
