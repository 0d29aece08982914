// What NAV's own packages for Node.js do at a sidecar, with the same requests and the same expectations: @navikt/texas and
// @navikt/oasis are not on the npm registry. Prints one line of JSON.
//
//   node texas.mjs '{"sidecar": URL, "jwks": URL, "issuer": ..., "audience": ..., "token": ..., "target": ...}'

import { createRemoteJWKSet, decodeJwt, jwtVerify } from "jose";

const given = JSON.parse(process.argv[2]);

// @navikt/texas: members that are not set are null, and an error has a description only under exactly this type.
async function texas(path, fields) {
  const response = await fetch(`${given.sidecar}/api/v1/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      skip_cache: null, resource: null, authorization_details: null, claims: null, token_type_hint: null, ...fields,
    }),
  });
  if (response.ok) return { ok: true, ...(await response.json()) };
  const readable = [400, 500].includes(response.status) && response.headers.get("content-type") === "application/json";
  return { ok: false, status: response.status, description: readable ? (await response.json()).error_description : null };
}

// @navikt/oasis: verify the user's token oneself, exchange it, and keep the result until shortly before its own end.
async function oasis(user) {
  const keys = createRemoteJWKSet(new URL(given.jwks));
  const { payload } = await jwtVerify(user, keys, {
    issuer: given.issuer, audience: given.audience, algorithms: ["RS256"],
  });
  const exchanged = await texas("token/exchange", {
    identity_provider: "tokenx", target: given.target, user_token: user,
  });
  if (!exchanged.ok) return exchanged;
  const seconds = decodeJwt(exchanged.access_token).exp - Math.floor(Date.now() / 1000);
  return { ok: true, user: payload.sub, token: exchanged.access_token, seconds, type: typeof exchanged.expires_in };
}

const results = {
  oasis: await oasis(given.token),
  idporten: await texas("introspect", { identity_provider: "idporten", token: given.token }),
  refused: await texas("token", { identity_provider: "tokenx", target: given.target }),
  forgotten: await texas("token/exchange", { identity_provider: "tokenx", target: given.target, user_token: null }),
};
results.tokenx = await texas("introspect", { identity_provider: "tokenx", token: results.oasis.token });
console.log(JSON.stringify(results));
