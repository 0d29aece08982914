"""Entra ID's errors as data: one row for each AADSTS code, with everything that this package knows about it.

The texts are those that people know from logs and search engines. If Microsoft's documentation does not
state the HTTP status, the observed or the more plausible one is used; those rows say so.
This module is data only: the emulator raises the errors, and the token generator explains them to its users.
"""

# ruff: noqa: E501  the texts stay as people search for them
from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One AADSTS code.

    Attributes:
        error: the OAuth error.
        status: the HTTP status.
        text: Entra ID's sentence, with placeholders in braces.
        when: when the local Entra ID refuses with this code.
        check: name of the check that fails.
        remedy: what a developer changes so that the local Entra ID accepts the request; empty if nothing
            helps, or if the check itself names the change.
        advice: what a user of the token generator can do; empty if the text is enough.
        suberror: Entra ID's `suberror`.
        has_uri: whether the response has `error_uri`; Entra ID leaves it out for some codes.
    """

    code: int
    error: str
    status: int
    text: str
    when: str
    check: str = "request"
    remedy: str = ""
    advice: str = ""
    suberror: str | None = None
    has_uri: bool = True


_ROWS: Final = (
    # The client
    Kind(
        90002,
        "invalid_request",
        400,
        text="Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.",
        when="the tenant is unknown",
        remedy="use the tenant's GUID or domain name, as the console lists them",
    ),
    Kind(
        700016,
        "unauthorized_client",
        400,
        text="Application with identifier '{client_id}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.",
        when="the client is unknown in this tenant",
        check="client",
        remedy="use the client id from the application's environment (AZURE_APP_CLIENT_ID); the "
        "application needs a manifest with azure.application.enabled: true",
    ),
    Kind(
        700038,
        "unauthorized_client",
        400,
        text="{client_id} is not a valid application identifier.",
        when="the client id is the nil GUID, which configuration without a value often has",
        check="client",
        remedy="use the client id from the application's environment (AZURE_APP_CLIENT_ID)",
        has_uri=False,
    ),
    Kind(
        7000215,
        "invalid_client",
        401,
        text="Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client_id}'.",
        when="wrong client secret",
        check="credential",
        remedy="use AZURE_APP_CLIENT_SECRET from the application's environment; without --state it "
        "changes at every start",
        advice="The token generator's own client secret is wrong.",
    ),
    Kind(
        7000218,
        "invalid_client",
        401,  # status observed
        text="The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
        when="neither secret nor assertion was sent",
        check="credential",
        remedy="send client_secret, or client_assertion with client_assertion_type; a public client needs "
        'the annotation entra-fast/allow-public-client: "true"',
    ),
    Kind(
        700027,
        "invalid_client",
        401,  # status observed
        text="The certificate with identifier used to sign the client assertion is not registered on application, or the assertion does not verify. [Reason - {reason}] Application: '{client_id}'.",
        when="the assertion's signature is not valid, its key is unknown, or the assertion was used before",
        check="credential",
        remedy="sign with AZURE_APP_JWK from the application's environment, put its kid in the header, "
        "and create a new assertion for each request",
        advice="The provider does not know the token generator's own key.",
    ),
    Kind(
        700024,
        "invalid_client",
        401,
        text="Client assertion is not within its valid time range. Current time: {now}, assertion valid from {valid_from}, expiry time of assertion {valid_to}. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
        when="the assertion is outside its time range",
        check="credential",
        remedy="create a new, short-lived assertion for each request; compare the clocks",
    ),
    Kind(
        700021,
        "invalid_client",
        401,
        text="Client assertion application identifier doesn't match 'client_id' parameter. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
        when="the assertion's `iss` or `sub` is not the client",
        check="credential",
        remedy="set iss and sub of the assertion to the client id",
    ),
    Kind(
        700023,
        "invalid_client",
        401,
        text="Client assertion audience claim does not match Realm issuer or the token endpoint. The audience must be '{token_endpoint}' or '{issuer}'.",
        when="the assertion's `aud` is neither the token endpoint nor the issuer",
        check="credential",
        remedy="set aud of the assertion to the token endpoint or the issuer",
    ),
    Kind(
        700213,
        "invalid_client",
        401,
        text="No matching federated identity record found for presented assertion subject '{subject}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion.",
        when="the federated token belongs to another workload",
        check="credential",
        remedy="use the federated token of this application",
    ),
    Kind(
        700025,
        "invalid_client",
        401,
        text="Client is public so neither 'client_assertion' nor 'client_secret' should be presented.",
        when="a single-page application sends a credential with a code or a refresh token",
        check="credential",
        remedy="send no credential from a single-page application; if the application has a back end that "
        "signs users in, remove singlePageApplication: true from its manifest",
    ),
    # The request
    Kind(
        900144,
        "invalid_request",
        400,
        text="The request body must contain the following parameter: '{parameter}'.",
        when="a parameter is missing",
    ),
    Kind(
        900561,
        "invalid_request",
        405,
        text="The endpoint only accepts POST requests. Received a {method} request.",
        when="a method other than POST",
    ),
    Kind(
        9002313,
        "invalid_request",
        400,
        text="Invalid request. Request is malformed or invalid: {reason}.",
        when="the request is malformed",
    ),
    Kind(
        901002,
        "invalid_request",
        400,
        text="The 'resource' request parameter is not supported.",
        when="`resource` at a v2.0 endpoint",
        remedy="send scope=<resource>/.default instead, or use the v1.0 endpoint",
    ),
    Kind(
        70003,
        "unsupported_grant_type",
        400,
        text="The app requested an unsupported grant type '{grant_type}'.",
        when="an unsupported grant type",
        has_uri=False,
    ),
    Kind(
        70011,
        "invalid_scope",
        400,
        text="The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid.",
        when="the scope is malformed",
        check="scope",
        remedy="send scope=api://<cluster>.<namespace>.<application>/.default",
        advice="The audience is not a scope that the provider understands.",
    ),
    Kind(
        1002012,
        "invalid_scope",
        400,  # status observed
        text="The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).",
        when="client credentials with a scope that does not end in `/.default`",
        check="scope",
        remedy="end the scope in /.default",
    ),
    Kind(
        28000,
        "invalid_scope",
        400,
        text="Provided value for the input parameter scope is not valid because it contains more than one resource. Scope {scope} is not valid.",
        when="scopes of more than one application",
        check="scope",
        remedy="ask for one application at a time",
    ),
    Kind(
        650053,
        "invalid_client",
        400,
        text="The application '{client}' asked for scope '{scope}' that doesn't exist on the resource '{resource}'. Contact the app vendor.",
        when="a permission that Microsoft Graph does not have here",
        check="scope",
        remedy="a scope without an address is one of Microsoft Graph's; send "
        "scope=api://<cluster>.<namespace>.<application>/.default for an application",
        has_uri=False,
    ),
    Kind(
        500011,
        "invalid_resource",
        400,
        text="The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant.",
        when="the target is unknown in this tenant",
        check="target",
        remedy="check the spelling of the target; it needs a manifest with azure.application.enabled: "
        "true in this tenant",
        advice="No application has this name in this tenant. Check cluster, namespace and name.",
    ),
    # The decision
    Kind(
        501051,
        "invalid_grant",
        400,
        text="Application '{client_id}'({client}) is not assigned to a role for the application '{resource}'({target}).",
        when="machine-to-machine: the target does not admit the consumer",
        advice="The target does not admit the token generator. Add it to the target's manifest, under "
        "spec.accessPolicy.inbound.rules.",
    ),
    Kind(
        65001,
        "invalid_grant",
        400,
        text="The user or administrator has not consented to use the application with ID '{client_id}' named '{client}'. Send an interactive authorization request for this user and resource.",
        when="on behalf of a user: the target does not admit the consumer, or not with that scope "
        "(suberror `consent_required`)",
        advice="The target does not admit the token generator. Add it to the target's manifest, under "
        "spec.accessPolicy.inbound.rules.",
        suberror="consent_required",
        has_uri=False,
    ),
    Kind(
        50105,
        "invalid_grant",
        400,
        text="Your administrator has configured the application {target} ('{target_id}') to block users unless they are specifically granted ('assigned') access to the application. The signed in user '{{EmailHidden}}' is blocked because they are not a direct member of a group with access, nor had access directly assigned by an administrator. Please contact your administrator to assign access to this application.",
        when="the user is in none of the target's groups",
        advice="You are in none of the groups that the target admits. Sign in as another user, or add a "
        "group under spec.azure.application.claims.groups in the target's manifest (or set "
        "allowAllUsers: true).",
    ),
    Kind(
        50013,
        "invalid_grant",
        400,  # status observed
        text="Assertion failed signature validation. [Reason - {reason}]",
        when="the signature of the user's token is not valid, or it is no token of this provider",
        check="assertion",
        remedy="send an access token that this provider issued to a user for the calling application",
    ),
    Kind(
        7000114,
        "unauthorized_client",
        400,
        text="Application '{client_id}' is not allowed to make application on-behalf-of calls.",
        when="on behalf of: the token is an application's own, not a user's",
        check="assertion",
        remedy="send a user's access token; use client credentials where no user is involved",
    ),
    Kind(
        240002,
        "invalid_grant",
        400,
        text="Input id_token cannot be used as 'urn:ietf:params:oauth:grant-type:jwt-bearer' grant.",
        when="on behalf of: the token is an ID token",
        check="assertion",
        remedy="send the user's access token for the calling application instead of the ID token",
    ),
    Kind(
        500133,
        "invalid_grant",
        400,
        text="Assertion is not within its valid time range. Ensure that the access token is not expired before using it for user assertion, or request a new token. Current time: {now}, expiry time of assertion {valid_to}.",
        when="the user's token has expired",
        check="assertion",
        remedy="get a new token for the user",
    ),
    Kind(
        500131,
        "invalid_grant",
        400,
        text="Assertion audience does not match the Client app presenting the assertion. The audience in the assertion was '{audience}' and the expected audience is '{expected}' or one of the Application Uris of this application with App ID '{client_id}'({client}). If the application requesting the token is a daemon, use the client credentials flow instead.",
        when="the user's token is for an application other than the caller",
        check="assertion",
        remedy="send the token that was issued for the calling application, not one for the target or "
        "for another application",
    ),
    Kind(
        50076,
        "invalid_grant",
        400,  # status observed
        text="Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access '{resource}'.",
        when="only as a planned fault: multi-factor authentication (suberror `basic_action`, with `claims`)",
        suberror="basic_action",
    ),
    # Logins
    Kind(
        50011,
        "invalid_request",
        400,
        text="The redirect URI '{redirect_uri}' specified in the request does not match the redirect URIs configured for the application '{client_id}'. Make sure the redirect URI sent in the request matches one added to your application.",
        when="the redirect URI is not registered (shown on a page, never redirected)",
    ),
    Kind(
        900971,
        "invalid_request",
        400,
        text="No reply address provided.",
        when="the authorization request has no redirect URI (shown on a page)",
        remedy="send redirect_uri, one of those in spec.azure.application.replyURLs",
    ),
    Kind(
        50058,
        "login_required",
        400,
        text="A silent sign-in request was sent but no user is signed in.",
        when="`prompt=none` and no one is signed in",
    ),
    Kind(
        50034,
        "invalid_grant",
        400,
        text="The user account {{EmailHidden}} does not exist in the {tenant} directory. To sign into this application, the account must be added to the directory.",
        when="the user no longer exists in the directory",
        check="assertion",
    ),
    Kind(
        70000,
        "invalid_grant",
        400,
        text="Provided grant is invalid or malformed. {reason}",
        when="the code or refresh token belongs to another client",
        check="code",
    ),
    Kind(
        500112,
        "invalid_client",
        401,
        text="The reply address '{redirect_uri}' does not match the reply address '{expected}' provided when requesting Authorization code.",
        when="the `redirect_uri` of the token request is not that of the authorization request",
        check="code",
        remedy="repeat the redirect_uri of the authorization request exactly",
    ),
    Kind(
        70008,
        "invalid_grant",
        400,
        text="The provided authorization code or refresh token has expired due to inactivity. Send a new interactive authorization request for this user and resource.",
        when="the code or refresh token is unknown or has expired",
        check="code",
        remedy="start a new login",
    ),
    Kind(
        54005,
        "invalid_grant",
        400,
        text="OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token.",
        when="the code was already redeemed",
        check="code",
        remedy="start a new login; a code can be redeemed once",
    ),
    Kind(
        501481,
        "invalid_grant",
        400,
        text="The Code_Verifier does not match the code_challenge supplied in the authorization request.",
        when="PKCE: the code verifier does not match",
        check="code",
        remedy="send the code_verifier that belongs to the code_challenge",
    ),
    Kind(
        9002325,
        "invalid_request",
        400,
        text="Proof Key for Code Exchange is required for cross-origin authorization code redemption.",
        when="a single-page application without PKCE",
        check="code",
    ),
    Kind(
        9002326,
        "invalid_request",
        400,
        text="Cross-origin token redemption is permitted only for the 'Single-Page Application' client-type. Request origin: '{origin}'.",
        when="a request with `Origin` that is not a single-page application's code or refresh token, or that has a credential",
        check="origin",
        remedy="register the redirect URI as a single-page application's, with singlePageApplication: true or "
        "the annotation entra-fast/single-page-reply-urls; a server sends no Origin header",
    ),
    Kind(
        9002327,
        "invalid_request",
        400,
        text="Tokens issued for the 'Single-Page Application' client-type may only be redeemed via cross-origin requests.",
        when="a single-page application's code or refresh token without `Origin`",
        check="origin",
        remedy="redeem the code in the browser; if a server redeems it, do not register the redirect URI as "
        "a single-page application's",
    ),
    Kind(
        700084,
        "invalid_grant",
        400,
        text="The refresh token was issued to a single page app (SPA), and therefore has a fixed, limited lifetime of {lifetime}, which cannot be extended. It is now expired and a new sign in request must be sent by the SPA to the sign in page. The token was issued on {issued}.",
        when="a single-page application's refresh token, 24 hours after the login",
        check="refresh token",
        remedy="start a new login; prompt=none suffices while the user's session lasts",
    ),
    Kind(
        700054,
        "unsupported_response_type",
        400,
        text="response_type '{response_type}' is not enabled for the application.",
        when="a response type that does not exist, or that the application's manifest does not switch on",
        remedy='set the annotation entra-fast/allow-id-token-implicit-flow: "true" for ID tokens from the '
        'authorization endpoint, and entra-fast/allow-implicit-flow: "true" for access tokens',
    ),
    Kind(
        70005,
        "unsupported_response_type",
        400,
        text="response_type '{response_type}' requires the 'openid' scope.",
        when="an ID token is requested without the scope `openid`",
        check="scope",
        remedy="add openid to the scope",
    ),
    Kind(
        70007,
        "unsupported_response_mode",
        400,
        text="'{response_mode}' is not a supported value of 'response_mode' when requesting a token.",
        when="`response_mode=query` with a token in the response",
        remedy="send response_mode=form_post or response_mode=fragment",
    ),
    Kind(
        90014,
        "invalid_request",
        400,
        text="The required field '{field}' is missing from the credential. Ensure that you have all the necessary parameters for the login request.",
        when="an ID token is requested from the authorization endpoint without `nonce`",
        remedy="send a new random nonce with each request, and compare it with the token's",
    ),
    Kind(
        65004,
        "access_denied",
        400,
        text="User declined to consent to access the app.",
        when="the user declined on the consent page (`prompt=consent`)",
        check="consent",
    ),
    # Device codes. Which number stands for what is not confirmed for 70017, 70019 and 70020.
    Kind(
        70016,
        "authorization_pending",
        400,
        text="OAuth 2.0 device flow error. Authorization is pending. Continue polling.",
        when="device code: the user has not finished yet",
        check="device code",
        remedy="ask again after the interval",
    ),
    Kind(
        70017,
        "authorization_declined",
        400,
        text="OAuth 2.0 device flow error. The user denied the authorization request.",
        when="device code: the user declined",
        check="device code",
    ),
    Kind(
        70018,
        "bad_verification_code",
        400,
        text="Invalid verification code. Check the code that the device shows, and enter it again.",
        when="device code: the user typed a code that does not exist (shown on the page)",
        check="user code",
    ),
    Kind(
        70019,
        "bad_verification_code",
        400,
        text="OAuth 2.0 device flow error. The device code is unknown, or its tokens have been issued already.",
        when="device code: the code is unknown, or was used",
        check="device code",
        remedy="start again at the device authorization endpoint",
    ),
    Kind(
        70020,
        "expired_token",
        400,
        text="OAuth 2.0 device flow error. The device code has expired. Start again on the device.",
        when="device code: 15 minutes have passed (`code_expired` at the v1.0 endpoint)",
        check="device code",
        remedy="start again at the device authorization endpoint",
    ),
    Kind(
        90119,
        "invalid_request",
        400,
        text="The user code is null or empty.",
        when="device code: no code was typed (shown on the page)",
        check="user code",
    ),
    Kind(
        90120,
        "invalid_request",
        400,
        text="The request was already authorized or declined.",
        when="device code: the code was used before (shown on the page)",
        check="user code",
    ),
    # Documents
    Kind(
        50049,
        "invalid_instance",
        400,
        text="Unknown instance.",
        when="instance discovery is asked about another host",
    ),
    # Transient failures
    Kind(
        90033,
        "temporarily_unavailable",
        503,
        text="A transient error has occurred. Please try again.",
        when="only as a planned fault: a transient error",
    ),
    Kind(
        90055,
        "temporarily_unavailable",
        429,
        text="The request was throttled because tenant or application exceeded its limits. Try again later.",
        when="only as a planned fault: throttling, with `Retry-After`",
        advice="The provider is throttling requests. Wait a moment and try again.",
    ),
)

KINDS: Final = {row.code: row for row in _ROWS}
"""All rows, by code."""
