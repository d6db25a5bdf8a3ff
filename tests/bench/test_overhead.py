from minipar.bench import overhead


def test_each_op_stands_beside_numpys_call(monkeypatch):
    monkeypatch.setattr(overhead, "CALLS", 20)
    rows = overhead.overhead(rounds=2)
    assert [(r["engine"], r["model"]) for r in rows] == [
        (engine, f"op {name}") for name in overhead.OPS for engine in ("minipar", "numpy")
    ]
    assert all(row["step_ms"] > 0 for row in rows)
    assert all(row["over_us"] == 0 for row in rows if row["engine"] == "numpy")


def test_the_least_time_of_each_counts():
    slow = iter([5, 0])  # only the first round is disturbed
    assert all(t < 1 for t in overhead._least([lambda: None, lambda: next(slow, None)], 3))


def test_a_line_says_what_is_above_numpy():
    row = {"engine": "minipar", "model": "op add", "step_ms": 0.0023, "over_us": 1.987}
    assert overhead.line(row).endswith("2.30 µs a call, 1.99 µs above NumPy's own")
