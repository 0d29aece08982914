// Services that sign users in, as the documentation of each library shows. The first argument chooses the library; the
// line that is printed says where the service listens.

import express from "express";
import session from "express-session";

const { ISSUER, CLIENT_ID, CLIENT_SECRET } = process.env;
const app = express();
const server = app.listen(Number(process.env.PORT), "127.0.0.1", async () => {
  const base = `http://localhost:${server.address().port}`;
  await services[process.argv[2]](base);
  console.log(base);
});

const services = {
  // Its default: response_type id_token, response_mode form_post.
  async "express-openid-connect"(base) {
    const { default: library } = await import("express-openid-connect");
    app.use(library.auth({ issuerBaseURL: ISSUER, baseURL: base, clientID: CLIENT_ID, secret: "s".repeat(32) }));
    app.get("/", (request, response) => response.json({ user: request.oidc.user.preferred_username }));
  },
  // code id_token, form_post; it verifies nonce and c_hash, and redeems the code.
  async "passport-azure-ad"(base) {
    const { default: passport } = await import("passport");
    const { OIDCStrategy } = (await import("passport-azure-ad")).default;
    passport.serializeUser((user, done) => done(null, user));
    passport.deserializeUser((user, done) => done(null, user));
    passport.use(new OIDCStrategy({
      identityMetadata: `${ISSUER}/.well-known/openid-configuration`, clientID: CLIENT_ID, clientSecret: CLIENT_SECRET,
      responseType: "code id_token", responseMode: "form_post", redirectUrl: `${base}/auth/redirect`,
      allowHttpForRedirectUrl: true, scope: ["profile", "email"], loggingLevel: "error", loggingNoPII: true,
    }, (profile, done) => done(null, { user: profile.upn ?? profile._json.preferred_username, oid: profile.oid })));
    app.use(session({ secret: "s".repeat(32), resave: false, saveUninitialized: false }));
    app.use(express.urlencoded({ extended: true }), passport.initialize(), passport.session());
    const signIn = passport.authenticate("azuread-openidconnect", { failureRedirect: "/failed" });
    app.post("/auth/redirect", signIn, (_, response) => response.redirect("/"));
    app.get("/failed", (_, response) => response.status(500).json({ failed: true }));
    app.get("/", (request, response, next) => (request.user ? response.json(request.user) : signIn(request, response, next)));
  },
};
