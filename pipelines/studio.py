"""The studio: a local page on which a face is stylised and animated. Its models, its server, its end."""

from __future__ import annotations

import importlib.util
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from models.errors import EnvironmentProblem, must
from pipelines import registry
from pipelines.animate import open_engine
from pipelines.engines import Device, Engine
from pipelines.params import Params
from pipelines.processes import environment, term_as_exit
from pipelines.stage import Paths
from pipelines.studio_acts import Acts, Bounds
from pipelines.studio_choices import Choices, choices, sample_media
from pipelines.studio_guard import Guard, is_loopback
from pipelines.studio_visits import Visits, studio_folder
from pipelines.studio_work import Workshop
from pipelines.stylist import Stylist, open_stylist

logger = logging.getLogger(__name__)

HOST, PORT = "127.0.0.1", 7860
LEAVE_TIMEOUT_S = 3
"""Open connections are given so long when the studio ends."""
SAMPLE_PHOTOS, SAMPLE_VIDEOS = ("samples/portraits", (".jpg", ".png")), ("samples/faces", (".mp4",))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioOptions:
    """How the studio is served, and what it takes in."""

    host: str = HOST
    """The default is reached from this machine only."""
    port: int = PORT
    """0: any that is free."""
    max_upload_mb: float = 64.0
    max_seconds: float = 20.0
    """Of a driving video."""
    device: Device = "auto"


def serve(paths: Paths, params: Params | None, options: StudioOptions, *, tell: Callable[[str], None] = print) -> None:
    """Serve the page until it is interrupted (Ctrl-C or SIGTERM); everything that was uploaded or made goes then.

    Args:
        paths: of the project, for its samples and its registry.
        params: of the project; None: the environment's registry.
        options: how.
        tell: is given the page's address when it is ready.

    Raises:
        EnvironmentProblem: gradio is not installed, or the port is taken.
        TrackingError: the registry is away, or holds nothing to draw or to animate with.
    """
    if importlib.util.find_spec("gradio") is None:
        raise EnvironmentProblem(
            must("the studio", "find gradio", "none", 'Install it: pip install "inkmotion[studio]"')
        )
    if not is_loopback(options.host):
        logger.warning("everybody who reaches %s can use the studio: it asks for no password", options.host)
    with _bound(options) as listening, term_as_exit(), studio_folder() as root:
        uploads = root / "uploads"
        uploads.mkdir()
        quiet = {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": str(uploads),
            "GRADIO_HEARTBEAT_INTERVAL": "2",
            "HF_HUB_OFFLINE": "1",
        }
        with environment(quiet):
            visits = Visits(root)
            try:
                _run(_app(_acts(visits, paths, params, options), root, paths, options), visits, listening, tell)
            except KeyboardInterrupt:
                logger.info("the studio ends")
            finally:
                visits.end_all()


def _acts(visits: Visits, paths: Paths, params: Params | None, options: StudioOptions) -> Acts:
    portraits = sample_media(paths.root / SAMPLE_PHOTOS[0], SAMPLE_PHOTOS[1])
    asking = threading.Lock()  # MLflow points the whole process at a store while it fetches

    def stylist_of(uri: str) -> Stylist:
        with asking:
            return open_stylist(params, paths, model=uri, checkpoint=None, device=options.device)

    def mover_of(uri: str) -> Engine:
        with asking:
            return open_engine(params, paths, model=uri, checkpoint=None, device=options.device)[1]

    def offered() -> Choices:
        with asking:
            return choices(registry.store_of(params, paths))

    workshop = Workshop(stylist_of, mover_of, sample=portraits[-1] if portraits else None)
    first = offered()
    workshop.warm(first.stylists[0].uri, first.movers[0].uri)
    bounds = Bounds(max_bytes=_bytes(options), max_seconds=options.max_seconds)
    return Acts(visits, workshop, offered, bounds)


def _app(acts: Acts, root: Path, paths: Paths, options: StudioOptions) -> Any:
    """The page as an ASGI application."""
    import fastapi
    import gradio

    from pipelines.studio_events import build
    from pipelines.studio_look import CSS, theme
    from pipelines.studio_page import Samples

    photos, videos = (sample_media(paths.root / folder, kinds) for folder, kinds in (SAMPLE_PHOTOS, SAMPLE_VIDEOS))
    gradio.set_static_paths([root, *photos, *videos])
    page = build(acts, Samples(photos=photos, videos=videos))
    outer = fastapi.FastAPI(openapi_url=None)
    app = gradio.mount_gradio_app(
        outer,
        page,
        path="/",
        show_error=False,
        max_file_size=_bytes(options),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        theme=theme(),
        css=CSS,
    )
    return Guard(app, host=options.host)


def _run(app: Any, visits: Visits, listening: socket.socket, tell: Callable[[str], None]) -> None:
    """Serve until a signal comes."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            tell(_address(listening))

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            visits.end_all()  # before the server waits for what is being worked on
            super().handle_exit(sig, frame)

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=LEAVE_TIMEOUT_S, lifespan="on")
    Server(config).run(sockets=[listening])


def _bound(options: StudioOptions) -> socket.socket:
    """A socket of the studio's own.

    Raises:
        EnvironmentProblem: the port is taken, or there is no such address here.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((options.host, options.port))
    except OSError as error:
        bound.close()
        where, fix = f"{options.host}:{options.port}", "Choose another with --port (or --host)"
        raise EnvironmentProblem(must(where, "be free", str(error.strerror or error), fix)) from None
    return bound


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _bytes(options: StudioOptions) -> int:
    return int(options.max_upload_mb * 2**20)
