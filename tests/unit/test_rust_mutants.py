"""`make mutants-rust`: many mutants in one build of the Rust core."""

from __future__ import annotations

from typing import Any

from mutants.rust import one_build

SOURCE = """\
const LIMIT: usize = 3 * 2;

pub const fn is_small(n: usize) -> bool {
    n < LIMIT
}

impl Box {
    /// Neither `{"(": 1}` nor a "const fn" in a comment is code.
    #[must_use = "{("]
    pub fn fits(&self, sizes: [usize; { 1 + 1 }]) -> bool {
        sizes[0] < self.size
    }
}

fn all() -> impl Iterator<Item = usize> {
    0..3 + 1
}

#[cfg(test)]
mod tests {}
"""


def mutant(name: str, at: str, replacement: str, function: str, returns: str = "-> bool") -> dict[str, Any]:
    """As cargo-mutants describes it: `at` is the text that is replaced, `function` that of the function."""

    def span(start: int, length: int) -> dict[str, dict[str, int]]:
        places = {}
        for key, offset in (("start", start), ("end", start + length)):
            before = SOURCE[:offset]
            line = before.count("\n") + 1
            places[key] = {"line": line, "column": offset - (before.rfind("\n") + 1) + 1}
        return places

    start = SOURCE.index(function)
    described = {"return_type": returns, "span": span(start, len(function))} if function else None
    place = span(SOURCE.index(at, start), len(at))
    return {"name": name, "span": place, "replacement": replacement, "function": described}


FITS = """\
/// Neither `{"(": 1}` nor a "const fn" in a comment is code.
    #[must_use = "{("]
    pub fn fits(&self, sizes: [usize; { 1 + 1 }]) -> bool {
        sizes[0] < self.size
    }"""
EVERY = [
    mutant("constant", "*", "+", ""),
    mutant(
        "const fn",
        "n < LIMIT",
        "true",
        "pub const fn is_small(n: usize) -> bool {\n    n < LIMIT\n}",
    ),
    mutant("of the signature", "+", "-", FITS),
    mutant("value", "sizes[0] < self.size", "true", FITS),
    mutant("operator", "<", "<=", FITS),
    mutant(
        "impl Trait",
        "+",
        "-",
        "fn all() -> impl Iterator<Item = usize> {\n    0..3 + 1\n}",
        "-> impl Iterator<Item = usize>",
    ),
]


def test_only_mutants_of_the_bodies_of_functions_fit_into_one_build() -> None:
    """What decides at compile time cannot be chosen later, and one function returns one type."""
    changes = [one_build.change(each, SOURCE) for each in EVERY]
    assert [change.name for change in one_build.fitting(changes, SOURCE)] == ["value", "operator"]


def test_a_function_gets_a_body_for_each_of_its_mutants() -> None:
    """Everything else stays as it is, and each mutant is found again by its lines."""
    changes = one_build.fitting([one_build.change(each, SOURCE) for each in EVERY], SOURCE)
    text, lines = one_build.combined(SOURCE, "shapes::box", enumerate(changes, 1))
    expected = """\
/// Neither `{"(": 1}` nor a "const fn" in a comment is code.
    #[must_use = "{("]
    pub fn fits(&self, sizes: [usize; { 1 + 1 }]) -> bool { match crate::shapes::box::chosen_mutant() {
1 => {
        true
    }
2 => {
        sizes[0] <= self.size
    }
_ => {
        sizes[0] < self.size
    }
} }"""
    assert text == SOURCE.replace(FITS, expected) + one_build.CHOOSE
    found = {
        number: text.splitlines()[range_.start - 1 : range_.stop - 1] for number, range_ in lines.items()
    }
    assert found == {
        1: ["1 => {", "        true", "    }"],
        2: ["2 => {", "        sizes[0] <= self.size", "    }"],
    }
