"""As much of ComfyUI's server as the evaluation asks."""

import io
import json
from http.server import BaseHTTPRequestHandler

from helpers.evaluation import picture


def steps(graph):
    (sampler,) = (node for node in graph.values() if node["class_type"] == "KSampler")
    return sampler["inputs"]["steps"]


def saver(graph):
    return next(number for number, node in graph.items() if node["class_type"] == "SaveImage")


class ComfyUI(BaseHTTPRequestHandler):
    """As much of a server as the client asks for. A graph whose steps are 1 is refused, 2 fails while it runs."""

    def log_message(self, *_): ...

    def answer(self, content, status=200):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/upload/image":
            return self.answer({"name": "cat.png", "subfolder": "s", "type": "input"})
        graph = json.loads(body)["prompt"]
        if steps(graph) == 1:
            errors = {
                "3": {"class_type": "KSampler", "errors": [{"message": "Bad value", "details": "steps"}]}
            }
            return self.answer({"error": {"message": "invalid"}, "node_errors": errors}, 400)
        self.server.graphs.append(graph)
        return self.answer({"prompt_id": str(len(self.server.graphs))})

    def do_GET(self):
        if self.path.startswith("/history/"):
            number = self.path.rsplit("/", 1)[1]
            graph = self.server.graphs[int(number) - 1]
            told = [["execution_error", {"node_type": "KSampler", "exception_message": "out of memory"}]]
            if steps(graph) == 2:
                return self.answer(
                    {number: {"outputs": {}, "status": {"status_str": "error", "messages": told}}}
                )
            images = [{"filename": "a.png", "subfolder": "", "type": "output"}]
            status = {"status_str": "success", "completed": True}
            return self.answer({number: {"outputs": {saver(graph): {"images": images}}, "status": status}})
        if self.path.startswith("/view"):
            file = io.BytesIO()
            picture(3).save(file, "PNG")
            return self.answer(file.getvalue())
        return self.answer({})
