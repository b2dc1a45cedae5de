"""Did you mean."""

from cgan.errors import CganError, UnknownNameError, suggest


def test_nearest_known_name() -> None:
    assert suggest("Cat", ["cat", "dog"]) == "; did you mean 'cat'?"
    assert suggest("xyz", ["cat", "dog"]) == "; choose from cat, dog"
    many = [f"class{index:03}" for index in range(50)]
    assert suggest("xyz", many) == "; there are 50, from 'class000' to 'class049'"


def test_unknown_name_is_one_of_ours() -> None:
    error = UnknownNameError("class", "dgo", ["cat", "dog"])
    assert isinstance(error, CganError)
    assert str(error) == "no class 'dgo'; did you mean 'dog'?"
