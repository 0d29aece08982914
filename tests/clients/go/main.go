// Each command runs one real client against the provider that the environment names and prints one line of JSON.
// Errors of the provider are printed as well, as the client gives them to its caller. The environment is that of
// node/clients.mjs.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

type result map[string]any

var (
	authority  = os.Getenv("AUTHORITY")
	issuer     = os.Getenv("ISSUER")
	clientID   = os.Getenv("CLIENT_ID")
	secret     = os.Getenv("CLIENT_SECRET")
	scope      = os.Getenv("SCOPE")
	userToken  = os.Getenv("USER_TOKEN")
	redirect   = os.Getenv("REDIRECT_URI")
	background = context.Background()
)

func main() {
	commands := map[string]func() (result, error){
		"msal-client-credentials": msalClientCredentials,
		"msal-certificate":        msalCertificate,
		"msal-on-behalf-of":       msalOnBehalfOf,
		"msal-auth-code":          msalAuthCode,
		"msal-device-code":        msalDeviceCode,
		"azidentity-secret":       azidentitySecret,
		"azidentity-assertion":    azidentityAssertion,
		"azidentity-on-behalf-of": azidentityOnBehalfOf,
		"oidc-login":              oidcLogin,
		"oidc-verify":             oidcVerify,
	}
	answer, err := commands[os.Args[1]]()
	if err != nil {
		answer = result{"failed": result{"message": err.Error()}}
	}
	line, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func confidentialClient(credential confidential.Credential) (confidential.Client, error) {
	return confidential.New(authority, clientID, credential, confidential.WithInstanceDiscovery(false))
}

func withSecret() (confidential.Client, error) {
	credential, err := confidential.NewCredFromSecret(secret)
	if err != nil {
		return confidential.Client{}, err
	}
	return confidentialClient(credential)
}

func msalClientCredentials() (result, error) {
	client, err := withSecret()
	if err != nil {
		return nil, err
	}
	first, err := client.AcquireTokenByCredential(background, []string{scope})
	if err != nil {
		return nil, err
	}
	again, err := client.AcquireTokenByCredential(background, []string{scope})
	if err != nil {
		return nil, err
	}
	return result{"token": first.AccessToken, "cached": again.AccessToken == first.AccessToken}, nil
}

func msalCertificate() (result, error) {
	certificates, key, err := confidential.CertFromPEM([]byte(os.Getenv("PEM_WITH_CERTIFICATE")), "")
	if err != nil {
		return nil, err
	}
	credential, err := confidential.NewCredFromCert(certificates, key)
	if err != nil {
		return nil, err
	}
	client, err := confidentialClient(credential)
	if err != nil {
		return nil, err
	}
	token, err := client.AcquireTokenByCredential(background, []string{scope})
	return result{"token": token.AccessToken}, err
}

func msalOnBehalfOf() (result, error) {
	client, err := withSecret()
	if err != nil {
		return nil, err
	}
	token, err := client.AcquireTokenOnBehalfOf(background, userToken, []string{scope})
	return result{"token": token.AccessToken, "username": token.Account.PreferredUsername}, err
}

func msalAuthCode() (result, error) {
	client, err := withSecret()
	if err != nil {
		return nil, err
	}
	verifier := oauth2.GenerateVerifier()
	address, err := client.AuthCodeURL(background, clientID, redirect, []string{scope})
	if err != nil {
		return nil, err
	}
	address += "&code_challenge_method=S256&code_challenge=" + oauth2.S256ChallengeFromVerifier(verifier)
	answer, err := login(address)
	if err != nil {
		return nil, err
	}
	token, err := client.AcquireTokenByAuthCode(
		background, answer.Get("code"), redirect, []string{scope}, confidential.WithChallenge(verifier))
	if err != nil {
		return nil, err
	}
	silent, err := client.AcquireTokenSilent(background, []string{scope}, confidential.WithSilentAccount(token.Account))
	return result{
		"token":    token.AccessToken,
		"username": token.Account.PreferredUsername,
		"granted":  token.GrantedScopes,
		"declined": token.DeclinedScopes,
		"silent":   silent.AccessToken == token.AccessToken,
	}, err
}

func msalDeviceCode() (result, error) {
	client, err := public.New(clientID, public.WithAuthority(authority), public.WithInstanceDiscovery(false))
	if err != nil {
		return nil, err
	}
	device, err := client.AcquireTokenByDeviceCode(background, []string{scope})
	if err != nil {
		return nil, err
	}
	// The test reads this line, plays the user, and lets the client poll.
	fmt.Fprintf(os.Stderr, "%s %s\n", device.Result.VerificationURL, device.Result.UserCode)
	token, err := device.AuthenticationResult(background)
	return result{"token": token.AccessToken, "username": token.Account.PreferredUsername}, err
}

func options() azcore.ClientOptions {
	host := strings.TrimSuffix(authority, "/"+tenant())
	return azcore.ClientOptions{Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: host}}
}

func tenant() string {
	return authority[strings.LastIndex(authority, "/")+1:]
}

func get(credential azcore.TokenCredential, err error) (result, error) {
	if err != nil {
		return nil, err
	}
	token, err := credential.GetToken(background, policy.TokenRequestOptions{Scopes: []string{scope}})
	return result{"token": token.Token}, err
}

func azidentitySecret() (result, error) {
	return get(azidentity.NewClientSecretCredential(tenant(), clientID, secret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: options(), DisableInstanceDiscovery: true}))
}

func azidentityAssertion() (result, error) {
	assertion := func(context.Context) (string, error) { return os.Getenv("ASSERTION"), nil }
	return get(azidentity.NewClientAssertionCredential(tenant(), clientID, assertion,
		&azidentity.ClientAssertionCredentialOptions{ClientOptions: options(), DisableInstanceDiscovery: true}))
}

func azidentityOnBehalfOf() (result, error) {
	return get(azidentity.NewOnBehalfOfCredentialWithSecret(tenant(), clientID, userToken, secret,
		&azidentity.OnBehalfOfCredentialOptions{ClientOptions: options(), DisableInstanceDiscovery: true}))
}

func oidcLogin() (result, error) {
	provider, err := oidc.NewProvider(background, issuer)
	if err != nil {
		return nil, err
	}
	config := oauth2.Config{
		ClientID: clientID, ClientSecret: secret, RedirectURL: redirect, Endpoint: provider.Endpoint(),
		Scopes: []string{oidc.ScopeOpenID, "profile", "email", oidc.ScopeOfflineAccess},
	}
	verifier, nonce := oauth2.GenerateVerifier(), rand.Text()
	answer, err := login(config.AuthCodeURL("the-state", oauth2.S256ChallengeOption(verifier), oidc.Nonce(nonce)))
	if err != nil {
		return nil, err
	}
	token, err := config.Exchange(background, answer.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		return nil, err
	}
	raw, _ := token.Extra("id_token").(string)
	verified, err := provider.Verifier(&oidc.Config{ClientID: clientID}).Verify(background, raw)
	if err != nil {
		return nil, err
	}
	info, err := provider.UserInfo(background, oauth2.StaticTokenSource(token))
	if err != nil {
		return nil, err
	}
	fresh, err := config.TokenSource(background, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
	if err != nil {
		return nil, err
	}
	return result{
		"state": answer.Get("state") == "the-state", "nonce": verified.Nonce == nonce, "subject": verified.Subject,
		"email": info.Email, "refreshed": fresh.AccessToken != token.AccessToken,
	}, nil
}

func oidcVerify() (result, error) {
	provider, err := oidc.NewProvider(background, issuer)
	if err != nil {
		return nil, err
	}
	verified, err := provider.Verifier(&oidc.Config{ClientID: os.Getenv("AUDIENCE")}).Verify(background, userToken)
	if err != nil {
		return nil, err
	}
	return result{"subject": verified.Subject, "issuer": verified.Issuer}, nil
}

// The login page's form, as a browser would send it.
func login(address string) (url.Values, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	form := parsed.Query()
	form.Set("username", os.Getenv("USER"))
	parsed.RawQuery = ""
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.PostForm(parsed.String(), form)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	location, err := response.Location()
	if err != nil {
		return nil, err
	}
	return location.Query(), nil
}
