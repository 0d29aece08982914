"""The texts of the local ID-porten's pages, in English, Bokmål and Nynorsk. Northern Sami gets Bokmål."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LANGUAGES: Final = {"en": "English", "nb": "Bokmål", "nn": "Nynorsk"}

_ENGLISH: Final = {
    "product": "Local ID-porten",
    "purpose": "Logs in synthetic persons, for development",
    "badge": "For development, not for production",
    "skip": "Skip to content",
    "languages": "Language",
    "title": "Log in",
    "asks": "asks you to log in. No code and no BankID is needed.",
    "number": "National identity number or D-number",
    "number_hint": "11 digits of a synthetic person: 80 is added to the month of birth.",
    "level": "Level of assurance",
    "low": "Low",
    "substantial": "Substantial",
    "high": "High",
    "log_in": "Log in",
    "choose": "Or choose a person",
    "born": "born",
    "d_number": "D-number",
    "others": "Without a Norwegian number",
    "others_unavailable": (
        "The application gets logins by eIDAS if it asks for eidas-loa-substantial or another level of "
        "eIDAS in acr_values, and logins by e-mail if it asks for idporten-loa-low."
    ),
    "eidas": "Log in by eIDAS, with an identity of another country",
    "email": "E-mail address",
    "email_log_in": "Log in by e-mail",
    "cancel": "Cancel",
    "malformed": "A national identity number or D-number has 11 digits.",
    "birth_date": "The first six digits are no date of birth of a synthetic person: day, month + 80, year.",
    "check_digits": "The last two digits do not match the others: the number has a typing error.",
    "real": (
        "This number could belong to a real person. Use a synthetic one, with 80 added to the month of birth."
    ),
    "email_malformed": "This is not an e-mail address.",
    "level_refused": "The application does not accept this level. Choose one of the list.",
    "login_over": (
        "This login is no longer open: it is finished, or took longer than 30 minutes. Start again in "
        "the application."
    ),
    "failed": "Login failed",
    "what_to_do": "What to do:",
    "advice": "Correct the request of the application, then start the login again from there.",
    "register": (
        "Let the application send one of the registered redirect URIs, or add the one that it sends to "
        "the annotation entra-fast/idporten-redirect-uris in its manifest."
    ),
    "error": "Error",
    "correlation": "Correlation ID",
    "sent": "Sent",
    "registered": "Registered",
    "none": "none",
    "return": "Return to the application",
    "return_text": "The response goes to the application that asked for the login.",
    "continue": "Continue",
    "signed_out": "Logged out",
    "signed_out_text": "You are logged out of ID-porten and of the applications that you were logged in to.",
    "signing_out": "Logging out of an application",
    "no_client": (
        "You were not sent back to the application: the request names no client. Send id_token_hint or "
        "client_id."
    ),
    "wrong_hint": (
        "You were not sent back to the application: id_token_hint is no ID token of this provider for "
        "that client."
    ),
    "not_registered": (
        "You were not sent back to the application: post_logout_redirect_uri is not registered for it."
    ),
}
_BOKMAAL: Final = {
    "product": "Lokal ID-porten",
    "purpose": "Logger inn syntetiske personer, for utvikling",
    "badge": "For utvikling, ikke for produksjon",
    "skip": "Hopp til innholdet",
    "languages": "Språk",
    "title": "Logg inn",
    "asks": "ber deg logge inn. Du trenger verken kode eller BankID.",
    "number": "Fødselsnummer eller D-nummer",
    "number_hint": "11 siffer for en syntetisk person: 80 er lagt til fødselsmåneden.",
    "level": "Sikkerhetsnivå",
    "low": "Lavt",
    "substantial": "Betydelig",
    "high": "Høyt",
    "log_in": "Logg inn",
    "choose": "Eller velg en person",
    "born": "født",
    "d_number": "D-nummer",
    "others": "Uten norsk nummer",
    "others_unavailable": (
        "Applikasjonen får innlogging med eIDAS hvis den ber om eidas-loa-substantial eller et annet "
        "eIDAS-nivå i acr_values, og innlogging med e-post hvis den ber om idporten-loa-low."
    ),
    "eidas": "Logg inn med eIDAS, med en identitet fra et annet land",
    "email": "E-postadresse",
    "email_log_in": "Logg inn med e-post",
    "cancel": "Avbryt",
    "malformed": "Et fødselsnummer eller D-nummer har 11 siffer.",
    "birth_date": "De seks første sifrene er ingen fødselsdato for en syntetisk person: dag, måned + 80, år.",
    "check_digits": "De to siste sifrene stemmer ikke med de andre: nummeret har en skrivefeil.",
    "real": (
        "Dette nummeret kan tilhøre en virkelig person. Bruk et syntetisk nummer, der 80 er lagt til "
        "fødselsmåneden."
    ),
    "email_malformed": "Dette er ikke en e-postadresse.",
    "level_refused": "Applikasjonen godtar ikke dette nivået. Velg et av nivåene i listen.",
    "login_over": (
        "Denne innloggingen er ikke lenger åpen: den er fullført, eller den tok mer enn 30 minutter. "
        "Begynn på nytt i applikasjonen."
    ),
    "failed": "Innloggingen mislyktes",
    "what_to_do": "Hva du kan gjøre:",
    "advice": "Rett forespørselen fra applikasjonen, og begynn innloggingen på nytt derfra.",
    "register": (
        "La applikasjonen sende en av de registrerte adressene, eller legg adressen som den sender, til "
        "annotasjonen entra-fast/idporten-redirect-uris i manifestet."
    ),
    "error": "Feil",
    "correlation": "Korrelasjons-ID",
    "sent": "Sendt",
    "registered": "Registrert",
    "none": "ingen",
    "return": "Tilbake til applikasjonen",
    "return_text": "Svaret går til applikasjonen som ba om innloggingen.",
    "continue": "Fortsett",
    "signed_out": "Logget ut",
    "signed_out_text": "Du er logget ut av ID-porten og av applikasjonene du var logget inn i.",
    "signing_out": "Logger ut av en applikasjon",
    "no_client": (
        "Du ble ikke sendt tilbake til applikasjonen: forespørselen nevner ingen klient. Send "
        "id_token_hint eller client_id."
    ),
    "wrong_hint": (
        "Du ble ikke sendt tilbake til applikasjonen: id_token_hint er ikke et ID-token herfra for den "
        "klienten."
    ),
    "not_registered": (
        "Du ble ikke sendt tilbake til applikasjonen: post_logout_redirect_uri er ikke registrert for den."
    ),
}
_NYNORSK: Final = _BOKMAAL | {
    "purpose": "Loggar inn syntetiske personar, for utvikling",
    "badge": "For utvikling, ikkje for produksjon",
    "skip": "Hopp til innhaldet",
    "asks": "ber deg logge inn. Du treng verken kode eller BankID.",
    "number": "Fødselsnummer eller D-nummer",
    "number_hint": "11 siffer for ein syntetisk person: 80 er lagt til fødselsmånaden.",
    "level": "Tryggingsnivå",
    "high": "Høgt",
    "choose": "Eller vel ein person",
    "born": "fødd",
    "others": "Utan norsk nummer",
    "others_unavailable": (
        "Applikasjonen får innlogging med eIDAS om han ber om eidas-loa-substantial eller eit anna "
        "eIDAS-nivå i acr_values, og innlogging med e-post om han ber om idporten-loa-low."
    ),
    "eidas": "Logg inn med eIDAS, med ein identitet frå eit anna land",
    "malformed": "Eit fødselsnummer eller D-nummer har 11 siffer.",
    "birth_date": (
        "Dei seks første siffera er ingen fødselsdato for ein syntetisk person: dag, månad + 80, år."
    ),
    "check_digits": "Dei to siste siffera stemmer ikkje med dei andre: nummeret har ein skrivefeil.",
    "real": (
        "Dette nummeret kan høyre til ein verkeleg person. Bruk eit syntetisk nummer, der 80 er lagt til"
        " fødselsmånaden."
    ),
    "email_malformed": "Dette er ikkje ei e-postadresse.",
    "level_refused": "Applikasjonen godtek ikkje dette nivået. Vel eit av nivåa i lista.",
    "login_over": (
        "Denne innlogginga er ikkje lenger open: ho er fullført, eller ho tok meir enn 30 minutt. Byrj "
        "på nytt i applikasjonen."
    ),
    "failed": "Innlogginga lukkast ikkje",
    "what_to_do": "Kva du kan gjere:",
    "advice": "Rett førespurnaden frå applikasjonen, og byrj innlogginga på nytt derifrå.",
    "register": (
        "Lat applikasjonen sende ei av dei registrerte adressene, eller legg adressa som han sender, til"
        " annotasjonen entra-fast/idporten-redirect-uris i manifestet."
    ),
    "error": "Feil",
    "sent": "Sendt",
    "none": "ingen",
    "return": "Tilbake til applikasjonen",
    "return_text": "Svaret går til applikasjonen som bad om innlogginga.",
    "continue": "Hald fram",
    "signed_out": "Logga ut",
    "signed_out_text": "Du er logga ut av ID-porten og av applikasjonane du var logga inn i.",
    "signing_out": "Loggar ut av ein applikasjon",
    "no_client": (
        "Du vart ikkje send tilbake til applikasjonen: førespurnaden nemner ingen klient. Send "
        "id_token_hint eller client_id."
    ),
    "wrong_hint": (
        "Du vart ikkje send tilbake til applikasjonen: id_token_hint er ikkje eit ID-token herifrå for "
        "den klienten."
    ),
    "not_registered": (
        "Du vart ikkje send tilbake til applikasjonen: post_logout_redirect_uri er ikkje registrert for han."
    ),
}
_WORDING: Final[Mapping[str, Mapping[str, str]]] = {"en": _ENGLISH, "nb": _BOKMAAL, "nn": _NYNORSK}


def wording(locale: str) -> tuple[str, Mapping[str, str]]:
    """(language of the texts, texts by name) for a locale of ID-porten."""
    language = locale if locale in _WORDING else "nb"
    return language, _WORDING[language]
