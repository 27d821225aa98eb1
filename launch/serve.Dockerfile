# The server of an exported run (docs/serving.md), without JAX. Build it in the root of the repository:
#   docker build -f launch/serve.Dockerfile -t birds .
#   docker run --rm --cpus=2 -p 127.0.0.1:8000:8000 -v "$PWD/birds.onnx:/model.onnx:ro" birds
FROM python:3.12-slim
COPY . /source
# Of the requirements of the package, only those that the server imports.
RUN pip install --no-cache-dir absl-py ml-collections numpy onnxruntime opencv-python-headless pillow \
      python-multipart starlette uvicorn \
    && pip install --no-cache-dir --no-deps /source \
    && rm -r /source
USER nobody
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["ssanet", "serve", "--host=0.0.0.0", "--model=/model.onnx"]
