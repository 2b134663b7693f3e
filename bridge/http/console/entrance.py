"""The way in and out: log-in, log-out, which language is spoken."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.http.access import Guard, check_origin
from bridge.http.console.language import COOKIE, LANGUAGES
from bridge.http.console.page import ROOT, local_path, see
from bridge.http.console.site import Asked, Site, read_form
from bridge.http.problems import Problem
from bridge.http.sessions import LogIns

A_YEAR_S = 365 * 86400


def routes(site: Site, log_ins: LogIns) -> list[Route]:
    """The pages of this file."""

    async def log_in(request: Request) -> Response:
        if request.method == "POST":
            return await enter(request)
        wanted = local_path(request.query_params.get("next"))
        try:
            if (await Guard((), "viewer")(request)).kind == "operator":
                return see(wanted)
        except Problem:
            pass  # whoever is not known is asked who they are
        return await ask(request, wanted)

    async def ask(
        request: Request, wanted: str, *, name: str = "", error: str = "", status: int = 200
    ) -> Response:
        nobody = not await site.service.catalogue.operators()
        given = {
            "next": wanted,
            "name": name,
            "error": error,
            "first_run": nobody,
            "done": site.done(request),
        }
        return await site.pages.show(request, "login.html", status=status, **given)

    async def enter(request: Request) -> Response:
        form = await read_form(request)
        wanted, name = local_path(form.one("next")), form.one("name")
        answer = see(wanted)
        try:
            await log_ins.begin(request, answer, name[:80], "".join(form.get("password", ()))[:1024])
        except Problem as problem:
            t = site.pages.language(request)
            if problem.status == 429:
                error = t("login.throttled", seconds=(problem.headers or {}).get("Retry-After", "60"))
            elif problem.status == 401:
                error = t("login.wrong")
            else:
                raise
            return await ask(request, wanted, name=name, error=error, status=problem.status)
        return answer

    async def log_out(asked: Asked) -> Response:
        answer = see(f"{ROOT}/login?done=out")
        await log_ins.end(asked.caller, asked.request, answer)
        return answer

    async def language(request: Request) -> Response:
        """Remember which language somebody chose, and go back to where they were."""
        check_origin(request)
        form = await read_form(request)
        chosen = form.one("to")
        if chosen not in LANGUAGES:
            raise Problem(422, f"to: found {chosen[:20]!r}; allowed: {' and '.join(LANGUAGES)}")
        answer = see(local_path(form.one("next")))
        answer.set_cookie(COOKIE, chosen, max_age=A_YEAR_S, path=ROOT, httponly=True, samesite="lax")
        return answer

    return [
        Route("/login", log_in, methods=["GET", "POST"]),
        site.page("/logout", log_out, methods="POST"),
        Route("/language", language, methods=["POST"]),
    ]
