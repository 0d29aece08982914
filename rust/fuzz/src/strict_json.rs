//! The second opinion on JSON: `serde_json`, with what it tolerates noted down.
//!
//! `serde_json::Value` keeps the last of two members of one name and says nothing. The core refuses them, so a
//! comparison needs to know that there were some.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What `serde_json` read.
#[derive(Debug)]
pub struct Read {
    /// The value; of duplicate members the last one.
    pub value: Value,
    /// Did any object have two members of one name?
    pub duplicates: bool,
    /// How deep arrays and objects nest; 0 for a plain value.
    pub depth: usize,
}

/// Read a text with `serde_json`.
///
/// # Errors
/// Those of `serde_json`.
pub fn read(text: &[u8]) -> Result<Read, serde_json::Error> {
    let mut notes = Notes { duplicates: false, deepest: 0 };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = At { depth: 0, notes: &mut notes }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(Read { value, duplicates: notes.duplicates, depth: notes.deepest })
}

/// Does the text follow the grammar, whatever the size of its numbers?
#[must_use]
pub fn follows_grammar(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

struct Notes {
    duplicates: bool,
    deepest: usize,
}

struct At<'n> {
    depth: usize,
    notes: &'n mut Notes,
}

impl At<'_> {
    fn inside(&mut self) -> At<'_> {
        let depth = self.depth + 1;
        self.notes.deepest = self.notes.deepest.max(depth);
        At { depth, notes: self.notes }
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        let At { depth, notes } = self.inside();
        while let Some(element) = elements.next_element_seed(At { depth, notes })? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let At { depth, notes } = self.inside();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(At { depth, notes })?;
            if object.insert(name, value).is_some() {
                notes.duplicates = true;
            }
        }
        Ok(Value::Object(object))
    }
}
