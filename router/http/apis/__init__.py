"""Handlers and routes. The three APIs for predictions: `native` (the app's own), `cog` with
`cog_health`, and `replicate` with its `replicate_` modules. For the operator: `operations`,
`events`, `usage`. For pages: `package_files`. URLs that are in the answers of every API:
`streams`, `downloads`. For other machines of the box: `remote_files`.

A fourth API, in this order:
1. A module here. Its handlers call `router.http.new_prediction`, then `Predictions.create`, wait
   with `wait_for_end` of `router.http.context`, and answer. `native` is the shortest example.
2. Its `add_routes(app)`. `router.app` calls it before that of `native`, whose `/{model}` matches
   every path of one segment.
3. A new first segment of a path goes into RESERVED of `router.models.catalog`. Otherwise a model
   of that name would get its POSTs: `native` looks for a model's name before all other routes.
4. The shape of its errors: `router.http.errors`.
5. A function in `router.http.openapi_apis` that returns its paths, and a call of it in
   `build_openapi` of `router.http.openapi`; test_openapi.py compares them with the routes.
6. If it needs no key on a path, or an admin's: UNGUESSABLE_URLS or `admin_only` of
   `router.http.auth`. A new header of its requests: CORS_HEADERS of `router.http.middleware`.
7. A page in docs/http, in its README and in mkdocs.yml, tests in tests/e2e and
   tests/router/http/apis, and each path in the lists of tests/e2e/test_holders.py: who may see what
   it shows.
"""
