// Each command runs one real client against the provider that the environment names and prints one line of JSON.
// Errors of the provider are printed as well, as the client gives them to its caller.

const { TENANT, ASSERTION, ISSUER, AUTHORITY, CLIENT_ID, CLIENT_SECRET, AUDIENCE, SCOPE, USER_TOKEN, USER, REDIRECT_URI, JWK, PEM, X5T_S256 } =
  process.env;

async function msal(auth) {
  const { ConfidentialClientApplication } = await import("@azure/msal-node");
  return new ConfidentialClientApplication({
    auth: { clientId: CLIENT_ID, authority: AUTHORITY, knownAuthorities: [new URL(AUTHORITY).host], ...auth },
  });
}

const azure = () => ({ authorityHost: new URL(AUTHORITY).origin, disableInstanceDiscovery: true });

// The login page's form, as a browser would send it.
async function login(url) {
  const body = new URLSearchParams(new URL(url).search);
  body.set("username", USER);
  const answer = await fetch(new URL(url).origin + new URL(url).pathname, { method: "POST", body, redirect: "manual" });
  return new URL(answer.headers.get("location"));
}

// The page for device codes: the account, then the confirmation, with the cookie in between.
async function enterCode({ userCode, verificationUri }) {
  const post = (fields, headers = {}) =>
    fetch(verificationUri, { method: "POST", headers, body: new URLSearchParams({ code: userCode, ...fields }) });
  const cookie = (await post({ username: USER })).headers.get("set-cookie").split(";")[0];
  await post({ answer: "continue" }, { cookie });
}

const commands = {
  async "msal-client-credentials"() {
    const app = await msal({ clientSecret: CLIENT_SECRET });
    return { token: (await app.acquireTokenByClientCredential({ scopes: [SCOPE] })).accessToken };
  },
  async "msal-certificate"() {
    const app = await msal({ clientCertificate: { privateKey: PEM, thumbprintSha256: X5T_S256 } });
    const token = (await app.acquireTokenByClientCredential({ scopes: [SCOPE] })).accessToken;
    const again = await app.acquireTokenByClientCredential({ scopes: [SCOPE], skipCache: true });
    return { token, renewed: again.accessToken !== token };
  },
  async "msal-on-behalf-of"() {
    const app = await msal({ clientSecret: CLIENT_SECRET });
    const result = await app.acquireTokenOnBehalfOf({ oboAssertion: USER_TOKEN, scopes: [SCOPE] });
    return { token: result.accessToken, username: result.account.username };
  },
  async "msal-auth-code"() {
    const { CryptoProvider } = await import("@azure/msal-node");
    const app = await msal({ clientSecret: CLIENT_SECRET });
    const { verifier, challenge } = await new CryptoProvider().generatePkceCodes();
    const wanted = { scopes: [SCOPE], redirectUri: REDIRECT_URI };
    const url = await app.getAuthCodeUrl({
      ...wanted, codeChallenge: challenge, codeChallengeMethod: "S256", responseMode: "query",
    });
    const code = (await login(url)).searchParams.get("code");
    const result = await app.acquireTokenByCode({ ...wanted, code, codeVerifier: verifier });
    return { token: result.accessToken, username: result.account.username };
  },
  async "msal-device-code"() {
    const { PublicClientApplication } = await import("@azure/msal-node");
    const app = new PublicClientApplication({
      auth: { clientId: CLIENT_ID, authority: AUTHORITY, knownAuthorities: [new URL(AUTHORITY).host] },
    });
    const result = await app.acquireTokenByDeviceCode({ scopes: [SCOPE], deviceCodeCallback: enterCode });
    return { token: result.accessToken, username: result.account.username };
  },
  async "openid-client-hybrid"() {
    const client = await import("openid-client");
    const config = await client.discovery(new URL(ISSUER), CLIENT_ID, CLIENT_SECRET);
    client.useCodeIdTokenResponseType(config);
    const [state, nonce] = [client.randomState(), client.randomNonce()];
    const url = client.buildAuthorizationUrl(config, { redirect_uri: REDIRECT_URI, scope: "openid profile", state, nonce });
    const tokens = await client.authorizationCodeGrant(config, await login(url), { expectedState: state, expectedNonce: nonce });
    return { claims: tokens.claims() };
  },
  async "openid-client-implicit"() {
    const client = await import("openid-client");
    const config = await client.discovery(new URL(ISSUER), CLIENT_ID, CLIENT_SECRET);
    client.useIdTokenResponseType(config);
    const [state, nonce] = [client.randomState(), client.randomNonce()];
    const url = client.buildAuthorizationUrl(config, { redirect_uri: REDIRECT_URI, scope: "openid profile", state, nonce });
    return { claims: await client.implicitAuthentication(config, await login(url), nonce, { expectedState: state }) };
  },
  async "openid-client-login"() {
    const client = await import("openid-client");
    const config = await client.discovery(new URL(ISSUER), CLIENT_ID, CLIENT_SECRET);
    const verifier = client.randomPKCECodeVerifier();
    const [state, nonce] = [client.randomState(), client.randomNonce()];
    const url = client.buildAuthorizationUrl(config, {
      redirect_uri: REDIRECT_URI, scope: "openid profile email offline_access", state, nonce,
      code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
    });
    const tokens = await client.authorizationCodeGrant(config, await login(url), {
      pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true,
    });
    const claims = tokens.claims();
    const info = await client.fetchUserInfo(config, tokens.access_token, client.skipSubjectCheck);
    const fresh = await client.refreshTokenGrant(config, tokens.refresh_token);
    return { claims, info, refreshed: fresh.access_token !== tokens.access_token };
  },
  async "openid-client-idporten"() {
    const client = await import("openid-client");
    const { importJWK } = await import("jose");
    const jwk = JSON.parse(JWK);
    const key = { key: await importJWK(jwk, "RS256"), kid: jwk.kid };
    const config = await client.discovery(new URL(ISSUER), CLIENT_ID, {}, client.PrivateKeyJwt(key));
    const verifier = client.randomPKCECodeVerifier();
    const [state, nonce] = [client.randomState(), client.randomNonce()];
    const url = await client.buildAuthorizationUrlWithPAR(config, {
      redirect_uri: REDIRECT_URI, scope: "openid profile", state, nonce, acr_values: "idporten-loa-high",
      resource: AUDIENCE, code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
    });
    // The login page: a person is typed, as a browser would send it.
    const page = await fetch(url);
    const hidden = [...(await page.text()).matchAll(/<input type="hidden" name="(\w+)" value="([^"]*)"/g)];
    const body = new URLSearchParams({ ...Object.fromEntries(hidden.map(([, name, value]) => [name, value])), pid: USER });
    const answer = await fetch(new URL("/idporten/login", url), { method: "POST", body, redirect: "manual" });
    const tokens = await client.authorizationCodeGrant(config, new URL(answer.headers.get("location")), {
      pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true,
    });
    const claims = tokens.claims();
    const info = await client.fetchUserInfo(config, tokens.access_token, claims.sub);
    const fresh = await client.refreshTokenGrant(config, tokens.refresh_token);
    const logout = client.buildEndSessionUrl(config, { post_logout_redirect_uri: REDIRECT_URI });
    return { claims, info, token: fresh.access_token, logout: logout.href };
  },
  async "openid-client-private-key"() {
    const client = await import("openid-client");
    const { importJWK } = await import("jose");
    const jwk = JSON.parse(JWK);
    const key = { key: await importJWK(jwk, "RS256"), kid: jwk.kid };
    const config = await client.discovery(new URL(ISSUER), CLIENT_ID, {}, client.PrivateKeyJwt(key));
    const first = await client.clientCredentialsGrant(config, { scope: SCOPE });
    await client.clientCredentialsGrant(config, { scope: SCOPE });
    return { token: first.access_token };
  },
  async "azure-identity-secret"() {
    const { ClientSecretCredential } = await import("@azure/identity");
    const credential = new ClientSecretCredential(TENANT, CLIENT_ID, CLIENT_SECRET, azure());
    return { token: (await credential.getToken(SCOPE)).token };
  },
  async "azure-identity-assertion"() {
    const { ClientAssertionCredential } = await import("@azure/identity");
    const credential = new ClientAssertionCredential(TENANT, CLIENT_ID, async () => ASSERTION, azure());
    return { token: (await credential.getToken(SCOPE)).token };
  },
  async "azure-identity-on-behalf-of"() {
    const { OnBehalfOfCredential } = await import("@azure/identity");
    const credential = new OnBehalfOfCredential({
      tenantId: TENANT, clientId: CLIENT_ID, clientSecret: CLIENT_SECRET, userAssertionToken: USER_TOKEN, ...azure(),
    });
    return { token: (await credential.getToken(SCOPE)).token };
  },
  async "graph-client"() {
    const { Client } = await import("@microsoft/microsoft-graph-client");
    const client = Client.init({
      baseUrl: new URL(ISSUER).origin, customHosts: new Set(["localhost"]),
      authProvider: (done) => done(null, USER_TOKEN),
    });
    const me = await client.api("/me").select("displayName,mail").get();
    const groups = await client.api("/me/memberOf/microsoft.graph.group").select("id").top(1).get();
    return { me, groups: groups.value.length, more: "@odata.nextLink" in groups };
  },
  async "jose-verify"() {
    const { createRemoteJWKSet, jwtVerify } = await import("jose");
    const keys = createRemoteJWKSet(new URL(AUTHORITY + "/discovery/v2.0/keys"));
    const { payload } = await jwtVerify(USER_TOKEN, keys, { issuer: ISSUER, audience: AUDIENCE, algorithms: ["RS256"] });
    return { payload };
  },
};

try {
  console.log(JSON.stringify(await commands[process.argv[2]]()));
} catch (error) {
  const { name, code, errorCode, errorMessage, message, cause } = error;
  console.log(JSON.stringify({ failed: { name, code: errorCode ?? code, message: errorMessage ?? message, cause: cause?.error ?? String(cause ?? "") } }));
}
