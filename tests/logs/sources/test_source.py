from diet_ray.logs.sources.source import Part


def test_a_part_says_where_its_rows_are_counted_from() -> None:
    assert Part("log.csv", end_byte=10).place == "log.csv"
    assert Part("log.csv", first_byte=10).place == "log.csv from byte 10 on"
