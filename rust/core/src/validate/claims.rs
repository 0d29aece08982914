//! The claims of a token: the payload's own text, and the few values that are checked.
//!
//! One parse feeds both what is checked and what is handed out. [`Claims`] are made by verifying, so they can be trusted;
//! the
//! one exception has danger in its name. Does not belong here: the checks of the policy (`verify`), and what a
//! service requires of a verified token (`require.py`).

use std::borrow::Cow;

use crate::error::Error;
use crate::jose::base64url;
use crate::jose::json::{Document, Kind, Value};

/// What a token says about the agent identity behind it (Microsoft, "Token claims reference for agents").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Client id of the blueprint that the agent identity was made from (`xms_par_app_azp`).
    pub blueprint: Option<String>,
    /// Kinds of the actor (`xms_act_fct`).
    pub actor_kinds: Vec<u32>,
    /// Kinds of the subject (`xms_sub_fct`).
    pub subject_kinds: Vec<u32>,
}

impl Agent {
    /// The kind of an agent identity.
    pub const IDENTITY: u32 = 11;
    /// The kind of the user account of an agent.
    pub const USER: u32 = 13;

    /// Does the agent act for itself, without a user?
    #[must_use]
    pub fn is_subject(&self) -> bool {
        self.subject_kinds.contains(&Self::IDENTITY)
    }

    /// Is the user of the token the agent's own user account, not a person?
    #[must_use]
    pub fn is_user(&self) -> bool {
        self.subject_kinds.contains(&Self::USER)
    }
}

/// Latest time that is accepted in a claim: the end of the year 9999.
const MAX_NUMERIC_DATE: f64 = 253_402_300_799.0;

/// The claims of a token.
#[derive(Debug)]
pub struct Claims {
    document: Document,
    has_active: bool,
}

impl Claims {
    /// Decode a payload segment. The caller has verified its signature.
    pub(crate) fn decode(segment: &[u8]) -> Result<Self, Error> {
        let text = base64url::decode(segment)
            .map_err(|_| Error::NotAJwt { expected: "a base64url payload", found: "other characters" })?;
        Self::parse(text)
    }

    fn parse(text: Vec<u8>) -> Result<Self, Error> {
        let document = Document::parse(text).map_err(|error| Error::ClaimsNotAnObject { found: error.reason() })?;
        if document.root().kind() == Kind::Object {
            let has_active = document.root().get("active").is_some();
            Ok(Self { document, has_active })
        } else {
            Err(Error::ClaimsNotAnObject { found: "another kind of value" })
        }
    }

    /// Decode a payload segment that was not verified. For display, never for decisions.
    ///
    /// # Errors
    /// [`Error::NotAJwt`] or [`Error::ClaimsNotAnObject`].
    pub fn dangerous_unverified(segment: &[u8]) -> Result<Self, Error> {
        Self::decode(segment)
    }

    /// Claims that somebody else has verified, or nobody: their JSON text.
    ///
    /// # Errors
    /// [`Error::ClaimsNotAnObject`].
    pub fn dangerous_from_text(text: &str) -> Result<Self, Error> {
        Self::parse(text.as_bytes().to_vec())
    }

    /// The claims' JSON text, exactly as it was signed.
    #[must_use]
    pub fn text(&self) -> &str {
        self.document.text()
    }

    /// All claims as one JSON object.
    #[must_use]
    pub fn root(&self) -> Value<'_> {
        self.document.root()
    }

    /// A claim.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value<'_>> {
        self.root().get(name)
    }

    /// Is there a claim called `active`? Computed in advance, because every introspection response needs it.
    #[must_use]
    pub const fn has_active(&self) -> bool {
        self.has_active
    }

    /// A claim that is a string; None if it is absent or something else.
    #[must_use]
    pub fn string(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).and_then(Value::as_str)
    }

    /// The strings in a claim that is an array; nothing if it is absent or something else.
    pub fn strings(&self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        self.get(name).into_iter().flat_map(Value::elements).filter_map(Value::as_str)
    }

    /// Scopes: the words of `scp` (Entra ID); in tokens of other providers, which have no `tid`, of `scope` where there
    /// is no `scp` (RFC 9068, section 2.2.3).
    #[must_use]
    pub fn scopes(&self) -> Vec<String> {
        let absent = |name| self.get(name).is_none_or(|value| value.kind() == Kind::Null);
        let name = if absent("scp") && absent("tid") { "scope" } else { "scp" };
        let scopes = self.string(name).unwrap_or_default();
        scopes.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// Client id of the application that asked for the token: `azp`, in v1.0 tokens of Entra ID `appid`, else
    /// `client_id` (RFC 9068, section 2.2).
    #[must_use]
    pub fn authorized_party(&self) -> Option<Cow<'_, str>> {
        ["azp", "appid", "client_id"].into_iter().find_map(|name| self.string(name))
    }

    /// The number of the Norwegian organization in a claim of Maskinporten or ID-porten, such as `consumer`:
    /// `{"authority":"iso6523-actorid-upis","ID":"0192:<number>"}`. None if the claim is anything else.
    #[must_use]
    pub fn organization_number(&self, name: &str) -> Option<String> {
        let organization = self.get(name)?;
        let number = organization.get("ID")?.as_str()?.strip_prefix("0192:")?.to_owned();
        let is_number = number.len() == 9 && number.bytes().all(|byte| byte.is_ascii_digit());
        let is_authority = organization.get("authority")?.is_str("iso6523-actorid-upis");
        (is_number && is_authority).then_some(number)
    }

    /// Machine-to-machine? Entra ID writes `idtyp` `app` if and only if it is. False also where it cannot be told.
    #[must_use]
    pub fn is_app(&self) -> bool {
        self.get("idtyp").is_some_and(|idtyp| idtyp.is_str("app"))
    }

    /// Is it the token of an application on behalf of a user? Then it has delegated permissions (`scp`). False also
    /// where it cannot be told: machines of other providers have a `scope`, too.
    #[must_use]
    pub fn is_user(&self) -> bool {
        !self.is_app() && self.string("scp").is_some() && !self.scopes().is_empty()
    }

    /// The agent identity behind the token (Entra Agent ID); None if there is none. Entra ID writes kinds of actors and
    /// subjects into tokens of other applications, too, so their presence alone means nothing.
    #[must_use]
    pub fn agent(&self) -> Option<Agent> {
        let agent = Agent {
            blueprint: self.string("xms_par_app_azp").map(Cow::into_owned),
            actor_kinds: self.kinds("xms_act_fct"),
            subject_kinds: self.kinds("xms_sub_fct"),
        };
        let kinds = [agent.actor_kinds.as_slice(), agent.subject_kinds.as_slice()].concat();
        let is_agent = kinds.iter().any(|kind| [Agent::IDENTITY, Agent::USER].contains(kind));
        (is_agent || agent.blueprint.is_some()).then_some(agent)
    }

    /// The numbers in a claim that is a string of words; other words are skipped, as Microsoft may add some.
    fn kinds(&self, name: &str) -> Vec<u32> {
        self.string(name).unwrap_or_default().split(' ').filter_map(|word| word.parse().ok()).collect()
    }

    /// Are the groups left out because there are too many of them (`_claim_names`, or `hasgroups` in the
    /// implicit flow)? Then the absence of a group means nothing.
    #[must_use]
    pub fn has_groups_overage(&self) -> bool {
        let named = self.get("_claim_names").is_some_and(|names| names.get("groups").is_some());
        named || self.get("hasgroups").is_some_and(|has| has.kind() == Kind::Bool(true))
    }

    /// How many bytes the claims occupy on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.document.heap_bytes()
    }
}

/// Read a `NumericDate` (RFC 7519, section 2): seconds since the epoch, possibly with a fraction.
///
/// # Errors
/// [`Error::ClaimMalformed`] if it is no number, negative or beyond the year 9999.
pub(crate) fn numeric_date(name: &'static str, value: Value<'_>) -> Result<f64, Error> {
    value
        .as_f64()
        // Signed zero is a spelling of zero; NaN cannot be written in JSON.
        .filter(|seconds| (0.0..=MAX_NUMERIC_DATE).contains(seconds))
        .ok_or(Error::ClaimMalformed { name, expected: "a number of seconds since 1970, not beyond the year 9999" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jose::base64url::encode;

    fn claims(text: &str) -> Claims {
        Claims::decode(encode(text.as_bytes()).as_bytes()).unwrap()
    }

    #[test]
    fn claims_are_a_json_object_in_base64url() {
        let text = r#"{"sub":"ada","active":false}"#;
        for read in [
            claims(text),
            Claims::dangerous_unverified(encode(text.as_bytes()).as_bytes()).unwrap(),
            Claims::dangerous_from_text(text).unwrap(),
        ] {
            assert_eq!((read.text(), read.string("sub").as_deref(), read.has_active()), (text, Some("ada"), true));
            assert!(read.get("absent").is_none());
        }
        assert!(!claims("{}").has_active());
        for text in ["[]", "null", "1", r#""{}""#] {
            let error = Error::ClaimsNotAnObject { found: "another kind of value" };
            assert_eq!(Claims::dangerous_from_text(text).unwrap_err(), error, "{text}");
        }
        assert!(matches!(Claims::dangerous_from_text("{"), Err(Error::ClaimsNotAnObject { .. })));
        assert!(matches!(Claims::decode(b"!"), Err(Error::NotAJwt { expected: "a base64url payload", .. })));
    }

    #[test]
    fn a_claim_of_another_type_is_no_string_and_no_list_of_strings() {
        let claims = claims(r#"{"sub":"ada","roles":["a",1,"b\n",null],"empty":[],"number":1}"#);
        assert_eq!(claims.string("sub").as_deref(), Some("ada"));
        for name in ["roles", "number", "absent"] {
            assert_eq!(claims.string(name), None, "{name}");
        }
        assert_eq!(claims.strings("roles").collect::<Vec<_>>(), ["a", "b\n"]);
        for name in ["empty", "sub", "number", "absent"] {
            assert_eq!(claims.strings(name).count(), 0, "{name}");
        }
    }

    #[test]
    fn scopes_are_the_words_of_scp() {
        assert_eq!(claims(r#"{"scp":" read  write "}"#).scopes(), ["read", "write"]);
        for none in ["{}", r#"{"scp":""}"#, r#"{"scp":["read"]}"#] {
            assert!(claims(none).scopes().is_empty(), "{none}");
        }
    }

    #[test]
    fn scopes_of_other_providers_are_the_words_of_scope() {
        assert_eq!(claims(r#"{"scope":"nav:a/b.read  nav:c"}"#).scopes(), ["nav:a/b.read", "nav:c"]);
        assert_eq!(claims(r#"{"scp":"own","scope":"other"}"#).scopes(), ["own"]);
        assert_eq!(claims(r#"{"scp":null,"tid":null,"scope":"other"}"#).scopes(), ["other"]);
        for none in [r#"{"scope":"a","tid":"t"}"#, r#"{"scope":"a","scp":""}"#, r#"{"scope":["a"]}"#] {
            assert!(claims(none).scopes().is_empty(), "{none}");
        }
    }

    #[test]
    fn the_authorized_party_is_named_by_the_first_claim_that_is_there() {
        for (text, party) in [
            (r#"{"azp":"a","appid":"b","client_id":"c"}"#, Some("a")),
            (r#"{"appid":"b","client_id":"c"}"#, Some("b")),
            (r#"{"client_id":"dev-gcp:team:app"}"#, Some("dev-gcp:team:app")),
            (r#"{"client_id":7}"#, None),
        ] {
            assert_eq!(claims(text).authorized_party().as_deref(), party, "{text}");
        }
    }

    #[test]
    fn an_organization_number_stands_in_one_form_only() {
        let consumer = |text: &str| claims(&format!(r#"{{"consumer":{text}}}"#)).organization_number("consumer");
        let own = r#"{"authority":"iso6523-actorid-upis","ID":"0192:310000019"}"#;
        assert_eq!(consumer(own).as_deref(), Some("310000019"));
        assert_eq!(claims("{}").organization_number("consumer"), None);
        for other in [
            r#""0192:310000019""#,
            r#"{"ID":"0192:310000019"}"#,
            r#"{"authority":"iso6523-actorid-upis"}"#,
            r#"{"authority":"other","ID":"0192:310000019"}"#,
            r#"{"authority":"iso6523-actorid-upis","ID":"0193:310000019"}"#,
            r#"{"authority":"iso6523-actorid-upis","ID":"310000019"}"#,
            r#"{"authority":"iso6523-actorid-upis","ID":"0192:31000001"}"#,
            r#"{"authority":"iso6523-actorid-upis","ID":"0192:3100000199"}"#,
            r#"{"authority":"iso6523-actorid-upis","ID":"0192:31000001x"}"#,
            r#"{"authority":"iso6523-actorid-upis","ID":310000019}"#,
            "[]",
        ] {
            assert_eq!(consumer(other), None, "{other}");
        }
    }

    #[test]
    fn whose_token_it_is_can_be_unknown() {
        for (text, app, user) in [
            (r#"{"idtyp":"app"}"#, true, false),
            (r#"{"idtyp":"app","scp":"read"}"#, true, false),
            (r#"{"scp":"read"}"#, false, true),
            (r#"{"scp":""}"#, false, false),
            (r#"{"scope":"read"}"#, false, false),
            (r#"{"pid":"17858549949","acr":"Level4"}"#, false, false),
        ] {
            assert_eq!((claims(text).is_app(), claims(text).is_user()), (app, user), "{text}");
        }
    }

    #[test]
    fn a_token_of_an_application_says_app() {
        assert!(claims(r#"{"idtyp":"app"}"#).is_app());
        for no in ["{}", r#"{"idtyp":"user"}"#, r#"{"idtyp":["app"]}"#, r#"{"idtyp":true}"#] {
            assert!(!claims(no).is_app(), "{no}");
        }
    }

    #[test]
    fn groups_are_left_out_when_either_claim_says_so() {
        for yes in [r#"{"_claim_names":{"groups":"src1"}}"#, r#"{"hasgroups":true}"#] {
            assert!(claims(yes).has_groups_overage(), "{yes}");
        }
        for no in [
            "{}",
            r#"{"groups":["g"]}"#,
            r#"{"_claim_names":{"other":"src1"}}"#,
            r#"{"hasgroups":false}"#,
            r#"{"hasgroups":"true"}"#,
        ] {
            assert!(!claims(no).has_groups_overage(), "{no}");
        }
    }

    #[test]
    fn the_text_is_charged_with_what_was_parsed_from_it() {
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(3000));
        assert!((3000..8000).contains(&claims(&long).heap_bytes()), "{}", claims(&long).heap_bytes());
    }

    #[test]
    fn times_are_numbers_of_seconds_up_to_the_year_9999() {
        let seconds = |text: &str| numeric_date("exp", claims(&format!(r#"{{"exp":{text}}}"#)).get("exp").unwrap());
        for (text, value) in [("0", 0.0), ("-0", 0.0), ("1.5", 1.5), ("2e9", 2e9), ("253402300799", 253_402_300_799.0)]
        {
            assert_eq!(seconds(text), Ok(value), "{text}");
        }
        for text in ["-1", "253402300800", "1e300", r#""1""#, "true", "null", "[1]"] {
            assert!(matches!(seconds(text), Err(Error::ClaimMalformed { name: "exp", .. })), "{text}");
        }
    }

    #[test]
    fn an_agent_is_told_by_its_kind_or_its_blueprint() {
        let agent = |text: &str| claims(text).agent();
        // Microsoft's example of an agent that acts for itself.
        let own = agent(r#"{"xms_act_fct":"3 9 11","xms_sub_fct":"9 3 11","xms_par_app_azp":"30cf4c22"}"#).unwrap();
        assert_eq!((&own.actor_kinds[..], &own.subject_kinds[..]), (&[3, 9, 11][..], &[9, 3, 11][..]));
        assert_eq!((own.blueprint.as_deref(), own.is_subject(), own.is_user()), (Some("30cf4c22"), true, false));
        let for_person = agent(r#"{"xms_act_fct":"11","xms_sub_fct":"1"}"#).unwrap();
        assert_eq!((for_person.is_subject(), for_person.is_user(), for_person.blueprint), (false, false, None));
        assert!(agent(r#"{"xms_act_fct":"11","xms_sub_fct":"13"}"#).unwrap().is_user());
        assert!(agent(r#"{"xms_par_app_azp":"b"}"#).is_some());
        // A managed identity, junk, and nothing.
        for none in [
            r#"{"xms_act_fct":"3 9","xms_sub_fct":"9 3"}"#,
            r#"{"xms_act_fct":"111 -11 1.1 eleven","xms_sub_fct":11,"xms_par_app_azp":null}"#,
            r#"{"xms_act_fct":["11"],"xms_par_app_azp":{}}"#,
            "{}",
        ] {
            assert_eq!(agent(none), None, "{none}");
        }
    }
}
