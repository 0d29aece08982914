//! The enabled providers of a sidecar, and which of them a request means.
//!
//! Belongs here: what the contract has to know about a provider, as data, and the value of `identity_provider`. Does
//! not belong here: any provider by its name, and what a provider is asked (its requests are Python's).

use super::contract::{Endpoint, Field, Refusal};

/// Maximum number of enabled providers. An application has one of each kind; the rest is what an operator adds.
pub const MAX_PROVIDERS: usize = 32;

/// An enabled provider, and the application at it.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "one for each fact of a row, and each is read alone")]
pub struct Provider {
    /// Its name, as `identity_provider` names it and as in the keys of the token cache.
    pub name: String,
    /// Further values of `identity_provider` that mean it.
    pub aliases: Vec<String>,
    /// Whether it issues tokens for the application itself.
    pub issues: bool,
    /// Whether it exchanges tokens of users.
    pub exchanges: bool,
    /// Whether `<cluster>:<namespace>:<app>` stands for a scope.
    pub rewrites_targets: bool,
    /// Whether `claims` is passed on. Otherwise it is ignored.
    pub accepts_claims: bool,
    /// Whether `resource` and `authorization_details` are passed on. Otherwise they are ignored.
    pub accepts_details: bool,
    /// The application's tenant, as in the keys of the token cache; empty where there are no tenants.
    pub tenant: String,
    /// The application's client id, as in the keys of the token cache.
    pub client_id: String,
}

impl Provider {
    fn is_named(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// Does it have what an endpoint needs? Every provider's tokens can be introspected.
    const fn supports(&self, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::Token => self.issues,
            Endpoint::Exchange => self.exchanges,
            Endpoint::Introspect => true,
        }
    }
}

/// The names of a provider that this version knows, enabled or not.
#[derive(Debug, Clone)]
pub struct Names {
    /// Its name.
    pub name: String,
    /// Older ones.
    pub aliases: Vec<String>,
}

/// The enabled providers, by position, and all known names.
#[derive(Debug, Clone, Default)]
pub struct Providers {
    enabled: Vec<Provider>,
    known: Vec<Names>,
}

impl Providers {
    /// These providers. `known` should have the names of the enabled ones too. Only the first [`MAX_PROVIDERS`] count.
    #[must_use]
    pub fn new(mut enabled: Vec<Provider>, known: Vec<Names>) -> Self {
        enabled.truncate(MAX_PROVIDERS);
        Self { enabled, known }
    }

    /// The enabled ones.
    #[must_use]
    pub fn enabled(&self) -> &[Provider] {
        &self.enabled
    }

    /// The position of the provider that a request to an endpoint means; `name` is None where it names none.
    ///
    /// # Errors
    /// A [`Refusal`] if there is no such provider, or it does not support the endpoint.
    #[inline]
    pub fn resolve(&self, name: Option<&str>, endpoint: Endpoint) -> Result<usize, Refusal> {
        let position = match name {
            Some(name) => self.enabled.iter().position(|provider| provider.is_named(name)),
            None => (self.enabled.len() == 1).then_some(0),
        };
        let position = position.ok_or_else(|| self.not_found(name))?;
        let provider = &self.enabled[position];
        if provider.supports(endpoint) {
            Ok(position)
        } else {
            Err(Refusal::NotSupported { provider: provider.name.clone(), endpoint })
        }
    }

    #[cold]
    fn not_found(&self, name: Option<&str>) -> Refusal {
        match name {
            // Never inferred, not even from a token: which provider is meant decides what a token is worth.
            None if self.enabled.is_empty() => Refusal::Missing(Field::IdentityProvider),
            None => {
                Refusal::WhichProvider { enabled: listed(self.enabled.iter().map(|provider| quoted(&provider.name))) }
            }
            Some(name) => match self
                .known
                .iter()
                .find(|known| known.name == name || known.aliases.iter().any(|alias| alias == name))
            {
                Some(known) => Refusal::NotEnabled { provider: known.name.clone() },
                None => Refusal::UnknownProvider { known: listed(self.known.iter().map(with_older_names)) },
            },
        }
    }
}

fn quoted(name: &str) -> String {
    format!("'{name}'")
}

fn with_older_names(names: &Names) -> String {
    match names.aliases.as_slice() {
        [] => quoted(&names.name),
        aliases => {
            let older = listed(aliases.iter().map(|alias| quoted(alias)));
            format!("{} (or its older name {older})", quoted(&names.name))
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
fn listed(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match items.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn providers(enabled: &[&str]) -> Providers {
        let row = |name: &&str| Provider { name: (*name).to_owned(), exchanges: true, ..Provider::default() };
        let known = |name: &str, aliases: &[&str]| Names {
            name: name.to_owned(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        };
        let mut enabled: Vec<Provider> = enabled.iter().map(row).collect();
        if let Some(first) = enabled.first_mut() {
            first.aliases.push("old_one".to_owned());
        }
        Providers::new(enabled, vec![known("one", &["old_one"]), known("two", &[]), known("three", &[])])
    }

    #[test]
    fn a_provider_is_named_or_is_the_only_one() {
        for (enabled, name, expected) in [
            (&["one"][..], Some("one"), Ok(0)),
            (&["one"], Some("old_one"), Ok(0)),
            (&["one"], None, Ok(0)),
            (&["one", "two"], Some("two"), Ok(1)),
            (&["one"], Some("two"), Err("identity provider 'two' is not enabled")),
            (&["two"], Some("one"), Err("identity provider 'one' is not enabled")),
            (&[], Some("old_one"), Err("identity provider 'one' is not enabled")),
            (&["one", "two"], None, Err("identity_provider is missing: expected 'one' or 'two'")),
            (&["one", "three", "two"], None, Err("identity_provider is missing: expected 'one', 'three' or 'two'")),
            (&[], None, Err("identity_provider is missing: expected a string")),
            (
                &["one"],
                Some("One"),
                Err("identity_provider must be 'one' (or its older name 'old_one'), 'two' or 'three'"),
            ),
        ] {
            let found = providers(enabled).resolve(name, Endpoint::Introspect).map_err(|refusal| refusal.to_string());
            assert_eq!(
                found.as_ref().map_err(String::as_str),
                expected.as_ref().map_err(|text| *text),
                "{enabled:?} {name:?}"
            );
        }
    }

    #[test]
    fn a_pair_that_does_not_exist_is_refused() {
        let providers = providers(&["one"]);
        let refused = |endpoint| providers.resolve(None, endpoint).map_err(|refusal| refusal.to_string());
        assert_eq!(refused(Endpoint::Exchange), Ok(0));
        assert_eq!(refused(Endpoint::Token), Err("identity provider 'one' does not support token requests".to_owned()));
        let silent = Providers::new(vec![Provider { name: "four".to_owned(), ..Provider::default() }], Vec::new());
        let error = silent.resolve(Some("four"), Endpoint::Exchange).unwrap_err();
        assert_eq!(error.to_string(), "identity provider 'four' does not support token exchange");
        assert_eq!(silent.resolve(Some("four"), Endpoint::Introspect), Ok(0));
    }

    #[test]
    fn there_is_a_limit_to_the_providers() {
        let many = vec![Provider::default(); MAX_PROVIDERS + 1];
        assert_eq!(Providers::new(many, Vec::new()).enabled().len(), MAX_PROVIDERS);
    }
}
