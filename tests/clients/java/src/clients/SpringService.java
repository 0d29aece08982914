package clients;

import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.core.annotation.Order;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.oauth2.client.oidc.userinfo.OidcUserService;
import org.springframework.security.oauth2.core.oidc.user.OidcUser;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** A Spring Boot service: /api takes bearer tokens, / signs users in. Its settings are arguments of the test. */
@SpringBootApplication
@RestController
public class SpringService {
    public static void main(String[] arguments) {
        SpringApplication.run(SpringService.class, arguments);
    }

    @Bean
    @Order(1)
    SecurityFilterChain api(HttpSecurity http) throws Exception {
        return http.securityMatcher("/api")
            .authorizeHttpRequests(requests -> requests.anyRequest().hasAuthority("SCOPE_cases.read"))
            .oauth2ResourceServer(server -> server.jwt(Customizer.withDefaults())).build();
    }

    @Bean
    @Order(2)
    SecurityFilterChain pages(HttpSecurity http) throws Exception {
        return http.authorizeHttpRequests(requests -> requests.anyRequest().authenticated())
            .oauth2Login(Customizer.withDefaults()).build();
    }

    /**
     * The ID token says who the user is. Entra ID's userinfo has the subject of another application (Microsoft Graph's), so
     * that Spring Security would refuse it (OpenID Connect Core 1.0, section 5.3.2).
     */
    @Bean
    OidcUserService users() {
        var users = new OidcUserService();
        users.setRetrieveUserInfo(request -> false);
        return users;
    }

    @GetMapping("/api")
    Map<String, String> api(@AuthenticationPrincipal Jwt token) {
        return Map.of("user", token.getClaimAsString("preferred_username"));
    }

    @GetMapping("/")
    Map<String, String> page(@AuthenticationPrincipal OidcUser user) {
        return Map.of("user", user.getPreferredUsername(), "email", String.valueOf(user.getEmail()));
    }
}
