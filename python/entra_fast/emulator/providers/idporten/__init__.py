"""A local ID-porten, Digdir's login service for citizens, as NAIS applications and their login proxy see it.

Behaviour follows Digdir's documentation and recorded answers of test.idporten.no. Left out of what the real
one announces: signed responses (`query.jwt`, `form_post.jwt`) and opaque access tokens. Its endpoints and
pages are in web/idporten.py.
"""
