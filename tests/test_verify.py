from stages.verify import ENVIRONMENTS


def test_the_twenty_environments_have_names_of_their_own() -> None:
    names = [str(environment) for environment in ENVIRONMENTS]
    assert len(set(names)) == len(names) == 20
    assert {"native-1-thread", "avx2-1-thread-3-processes", "sse4.2-2-threads-killed"} < {*names}
    assert {environment.processes for environment in ENVIRONMENTS} == {1, 2, 3}
    assert sum(environment.killed for environment in ENVIRONMENTS) == 6
