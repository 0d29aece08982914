package clients;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.microsoft.aad.msal4j.AuthorizationCodeParameters;
import com.microsoft.aad.msal4j.AuthorizationRequestUrlParameters;
import com.microsoft.aad.msal4j.ClientCredentialFactory;
import com.microsoft.aad.msal4j.ClientCredentialParameters;
import com.microsoft.aad.msal4j.ConfidentialClientApplication;
import com.microsoft.aad.msal4j.DeviceCodeFlowParameters;
import com.microsoft.aad.msal4j.OnBehalfOfParameters;
import com.microsoft.aad.msal4j.PublicClientApplication;
import com.microsoft.aad.msal4j.ResponseMode;
import com.microsoft.aad.msal4j.SilentParameters;
import com.microsoft.aad.msal4j.UserAssertion;
import java.net.URI;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Pattern;
import no.nav.security.token.support.core.configuration.IssuerProperties;
import no.nav.security.token.support.core.configuration.MultiIssuerConfiguration;
import no.nav.security.token.support.core.validation.JwtTokenValidationHandler;
import org.springframework.security.oauth2.jwt.JwtDecoders;

/**
 * Each command runs one real client against the provider that the environment names and prints one line of JSON.
 * Errors of the provider are printed as well, as the client gives them to its caller.
 */
public final class Clients {
    private static final String AUTHORITY = System.getenv("AUTHORITY") + "/";
    private static final String CLIENT_ID = System.getenv("CLIENT_ID");
    private static final Set<String> SCOPE = Set.of(System.getenv().getOrDefault("SCOPE", ""));
    private static final String USER_TOKEN = System.getenv("USER_TOKEN");
    private static final String REDIRECT = System.getenv("REDIRECT_URI");

    public static void main(String[] arguments) throws Exception {
        Map<String, Object> answer;
        try {
            answer = switch (arguments[0]) {
                case "msal-client-credentials" -> clientCredentials();
                case "msal-on-behalf-of" -> onBehalfOf();
                case "msal-auth-code" -> authCode();
                case "msal-device-code" -> deviceCode();
                case "spring-verify" -> springVerify();
                case "token-validation" -> tokenValidation();
                default -> throw new IllegalArgumentException(arguments[0]);
            };
        } catch (Exception error) {
            Throwable cause = error.getCause() == null ? error : error.getCause();
            answer = Map.of("failed", Map.of("message", String.valueOf(cause.getMessage())));
        }
        System.out.println(new ObjectMapper().writeValueAsString(answer));
        System.exit(0); // MSAL's threads
    }

    private static ConfidentialClientApplication application() throws Exception {
        return ConfidentialClientApplication
            .builder(CLIENT_ID, ClientCredentialFactory.createFromSecret(System.getenv("CLIENT_SECRET")))
            .authority(AUTHORITY).instanceDiscovery(false).validateAuthority(false).build();
    }

    private static Map<String, Object> clientCredentials() throws Exception {
        var application = application();
        var first = application.acquireToken(ClientCredentialParameters.builder(SCOPE).skipCache(false).build()).get();
        var again = application.acquireToken(ClientCredentialParameters.builder(SCOPE).skipCache(false).build()).get();
        return Map.of("token", first.accessToken(), "cached", first.accessToken().equals(again.accessToken()));
    }

    private static Map<String, Object> onBehalfOf() throws Exception {
        var result = application().acquireToken(
            OnBehalfOfParameters.builder(SCOPE, new UserAssertion(USER_TOKEN)).build()).get();
        return Map.of("token", result.accessToken(), "username", result.account().username());
    }

    private static Map<String, Object> authCode() throws Exception {
        var application = application();
        var url = application.getAuthorizationRequestUrl(
            AuthorizationRequestUrlParameters.builder(REDIRECT, SCOPE).responseMode(ResponseMode.QUERY).build());
        var code = login(url.toString()).get("code");
        var result = application.acquireToken(
            AuthorizationCodeParameters.builder(code, new URI(REDIRECT)).scopes(SCOPE).build()).get();
        var silent = application.acquireTokenSilently(SilentParameters.builder(SCOPE, result.account()).build()).get();
        return Map.of("token", result.accessToken(), "username", result.account().username(),
            "silent", silent.accessToken().equals(result.accessToken()));
    }

    private static Map<String, Object> deviceCode() throws Exception {
        var application = PublicClientApplication.builder(CLIENT_ID)
            .authority(AUTHORITY).instanceDiscovery(false).validateAuthority(false).build();
        // The test reads this line, plays the user, and lets the client poll.
        var result = application.acquireToken(DeviceCodeFlowParameters.builder(SCOPE,
            device -> System.err.println(device.verificationUri() + " " + device.userCode())).build()).get();
        return Map.of("token", result.accessToken(), "username", result.account().username());
    }

    private static Map<String, Object> springVerify() {
        var jwt = JwtDecoders.fromIssuerLocation(System.getenv("ISSUER")).decode(USER_TOKEN);
        return Map.of("audience", jwt.getAudience(), "issuer", jwt.getIssuer().toString());
    }

    private static Map<String, Object> tokenValidation() throws Exception {
        var properties = new IssuerProperties(
            new URI(System.getenv("ISSUER") + "/.well-known/openid-configuration").toURL(),
            List.of(System.getenv("AUDIENCE")));
        var handler = new JwtTokenValidationHandler(new MultiIssuerConfiguration(Map.of("azuread", properties)));
        var context = handler.getValidatedTokens(new BearerRequest());
        var token = context.getJwtToken("azuread");
        return Map.of("valid", token != null, "issuers", context.getIssuers());
    }

    private static final class BearerRequest implements no.nav.security.token.support.core.http.HttpRequest {
        @Override
        public String getHeader(String name) {
            return "Authorization".equalsIgnoreCase(name) ? "Bearer " + USER_TOKEN : null;
        }

        @Override
        public NameValue[] getCookies() {
            return new NameValue[0];
        }
    }

    /** The login page's form, as a browser would send it. */
    private static Map<String, String> login(String address) throws Exception {
        var parts = address.split("\\?", 2);
        var body = parts[1] + "&username=" + URLEncoder.encode(System.getenv("USER"), StandardCharsets.UTF_8);
        var response = HttpClient.newHttpClient().send(
            HttpRequest.newBuilder(new URI(parts[0]))
                .header("Content-Type", "application/x-www-form-urlencoded")
                .POST(HttpRequest.BodyPublishers.ofString(body)).build(),
            HttpResponse.BodyHandlers.ofString());
        var values = new HashMap<String, String>();
        Optional<String> location = response.headers().firstValue("Location");
        if (location.isEmpty()) { // MSAL4J asks for a form that posts itself
            var hidden = Pattern.compile("<input type=\"hidden\" name=\"([^\"]+)\" value=\"([^\"]*)\"").matcher(response.body());
            while (hidden.find()) {
                values.put(hidden.group(1), hidden.group(2));
            }
            return values;
        }
        for (var pair : new URI(location.orElseThrow()).getRawQuery().split("&")) {
            var both = pair.split("=", 2);
            values.put(both[0], URLDecoder.decode(both[1], StandardCharsets.UTF_8));
        }
        return values;
    }
}
