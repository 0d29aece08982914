//! Claims as a `dict`, made from what recurs from token to token: the names that tokens have in common, and values that
//! the tokens of an application share, such as its issuer and its audience.
//!
//! Belongs here: which objects are kept, and their bounds. Does not belong here: tokens that were not verified, because
//! anyone can make those up and would choose what is kept; and values that belong to one user or one token.
//!
//! Nobody waits for anybody: a thread that finds the kept objects in use makes its own.

use std::sync::{Mutex, TryLockError};

use entra_core::jose::json::{Kind, Value};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::claims::{claim_name, to_python};

/// An application sees few shapes of tokens: for users and for applications, v1.0 and v2.0, with and without roles.
const MAX_SHAPES: usize = 16;
/// Bounds of a shape that is kept: Entra ID's tokens have about 25 claims with short names.
const MAX_NAMES: usize = 64;
const MAX_NAME_BYTES: usize = 64;
/// Pairs of places for values. A value has one pair where it can be.
const PAIRS: usize = 128;
/// An issuer's URL is the longest value that recurs.
const MAX_VALUE_BYTES: usize = 128;

static KEPT: Mutex<Kept> = Mutex::new(Kept { shapes: Vec::new(), oldest: 0, values: Vec::new() });

struct Kept {
    shapes: Vec<Shape>,
    oldest: usize,
    /// Each value is compared before it is used, so what hashes alike costs time and nothing else.
    values: Vec<Option<(Box<str>, Py<PyString>)>>,
}

/// The names of the claims of some token, in their order.
struct Shape {
    names: Vec<Name>,
    /// A dict with these names, and the values that recurred last; everything else is None. A copy of it need not grow.
    last: Py<PyDict>,
}

struct Name {
    /// As the token spells it.
    text: Box<str>,
    object: Py<PyString>,
    recurs: bool,
    /// The string in `last`, as the token spells it.
    last: Option<Box<str>>,
}

/// The claims of a verified token as a new dict.
pub(crate) fn claims_to_dict<'py>(py: Python<'py>, claims: Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    match KEPT.try_lock() {
        Ok(mut kept) => kept.dict(py, claims),
        Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => to_python(py, claims),
    }
}

impl Kept {
    fn dict<'py>(&mut self, py: Python<'py>, claims: Value<'_>) -> PyResult<Bound<'py, PyAny>> {
        let Self { shapes, oldest, values } = self;
        let position = shapes.iter().position(|shape| shape.is_of(claims));
        let shape = match position {
            Some(position) => &mut shapes[position],
            None => match Shape::of(py, claims)? {
                None => return to_python(py, claims),
                Some(shape) if shapes.len() < MAX_SHAPES => {
                    shapes.push(shape);
                    let newest = shapes.len() - 1;
                    &mut shapes[newest]
                }
                Some(shape) => {
                    *oldest = (*oldest + 1) % MAX_SHAPES;
                    shapes[*oldest] = shape;
                    &mut shapes[*oldest]
                }
            },
        };
        let last = shape.last.bind(py);
        let dict = last.copy()?;
        for (name, (_, value)) in shape.names.iter_mut().zip(claims.members()) {
            let object = name.object.bind(py);
            if !name.recurs {
                dict.set_item(object, to_python(py, value)?)?;
            } else if value.kind() != Kind::String {
                dict.set_item(object, recurring(py, values, value)?)?;
                name.last = None;
            } else if name.last.as_deref() != Some(value.text()) {
                let text = recurring(py, values, value)?;
                dict.set_item(object, &text)?;
                let keep = value.text().len() <= MAX_VALUE_BYTES;
                name.last = None; // until `last` has the same
                last.set_item(object, keep.then_some(text))?;
                name.last = keep.then(|| value.text().into());
            }
        }
        Ok(dict.into_any())
    }
}

impl Shape {
    /// None if it exceeds the bounds.
    fn of(py: Python<'_>, claims: Value<'_>) -> PyResult<Option<Self>> {
        if claims.members().count() > MAX_NAMES || claims.members().any(|(name, _)| name.text().len() > MAX_NAME_BYTES)
        {
            return Ok(None);
        }
        let last = PyDict::new(py);
        let mut names = Vec::new();
        for (name, _) in claims.members() {
            let object = claim_name(py, name);
            last.set_item(&object, py.None())?;
            let recurs = recurs(name.text());
            names.push(Name { text: name.text().into(), object: object.unbind(), recurs, last: None });
        }
        Ok(Some(Self { names, last: last.unbind() }))
    }

    /// Does the token have exactly these names?
    fn is_of(&self, claims: Value<'_>) -> bool {
        let mut members = claims.members();
        self.names.iter().all(|name| members.next().is_some_and(|(own, _)| own.text() == &*name.text))
            && members.next().is_none()
    }
}

/// Do many tokens of one application have the same value in this claim? None of these says who the user is.
fn recurs(name: &str) -> bool {
    const RECURRING: [&str; 18] = [
        "iss",
        "aud",
        "tid",
        "ver",
        "azp",
        "azp_name",
        "azpacr",
        "appid",
        "appidacr",
        "app_displayname",
        "acr",
        "amr",
        "idp",
        "idtyp",
        "scp",
        "roles",
        "groups",
        "wids",
    ];
    RECURRING.contains(&name)
}

fn recurring<'py>(
    py: Python<'py>,
    values: &mut Vec<Option<(Box<str>, Py<PyString>)>>,
    value: Value<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    match value.kind() {
        Kind::String => Ok(recurring_text(py, values, &value.as_str().unwrap_or_default()).into_any()),
        Kind::Array => {
            let list = PyList::empty(py);
            for element in value.elements() {
                list.append(match element.as_str() {
                    Some(text) => recurring_text(py, values, &text).into_any(),
                    None => to_python(py, element)?,
                })?;
            }
            Ok(list.into_any())
        }
        _ => to_python(py, value),
    }
}

fn recurring_text<'py>(
    py: Python<'py>,
    values: &mut Vec<Option<(Box<str>, Py<PyString>)>>,
    text: &str,
) -> Bound<'py, PyString> {
    // Python itself keeps strings of one character.
    if text.len() < 2 || text.len() > MAX_VALUE_BYTES {
        return PyString::new(py, text);
    }
    if values.is_empty() {
        values.resize_with(2 * PAIRS, || None);
    }
    let first = 2 * pair_of(text.as_bytes());
    for place in [first, first + 1] {
        if let Some((kept, object)) = &values[place]
            && **kept == *text
        {
            return object.bind(py).clone();
        }
    }
    let object = PyString::new(py, text);
    values.swap(first, first + 1); // the older of the two goes
    values[first] = Some((text.into(), object.clone().unbind()));
    object
}

/// Ids differ everywhere, URLs at their ends.
fn pair_of(text: &[u8]) -> usize {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let head = text.first_chunk::<8>().map_or_else(|| number(text), |chunk| u64::from_le_bytes(*chunk));
    let tail = text.last_chunk::<8>().map_or(0, |chunk| u64::from_le_bytes(*chunk));
    let mixed = (head ^ tail.rotate_left(29) ^ text.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::try_from(mixed >> 32).unwrap_or(0) % PAIRS
}
