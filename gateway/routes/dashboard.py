"""The built dashboard: one page at `/`, its parts under `/assets`."""

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent.parent / "dashboard"


def serve_dashboard(app: FastAPI) -> None:
    # The assets' names hold the hash of their content, so they never change under their name.
    app.mount("/assets", _Immutable(directory=FOLDER / "assets"), name="assets")

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(FOLDER / "index.html", headers={"cache-control": "no-cache"})


class _Immutable(StaticFiles):
    def file_response(self, *args, **kwargs) -> Response:  # type: ignore[no-untyped-def]  # passes through
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response
