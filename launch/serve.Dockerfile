# The server of an exported run (docs/serving.md), without JAX. Build it in the root of the repository:
#   docker build -f launch/serve.Dockerfile -t birds .
#   docker run --rm --cpus=2 -p 127.0.0.1:8000:8000 -v "$PWD/birds.onnx:/model.onnx:ro" birds
FROM python:3.12-slim AS build
WORKDIR /source
# Nothing else, such as runs and photos in the same folder, gets into the image.
COPY pyproject.toml requirements.txt README.md LICENSE ./
COPY configs configs
COPY ssanet_jax ssanet_jax
RUN pip wheel --no-cache-dir --no-deps --wheel-dir=/wheels .

FROM python:3.12-slim
COPY --from=build /wheels /wheels
# Of the requirements of the package, only those that the server imports.
RUN pip install --no-cache-dir absl-py ml-collections numpy onnxruntime opencv-python-headless pillow \
      python-multipart "starlette>=1.10" uvicorn \
    && pip install --no-cache-dir --no-deps /wheels/*.whl
USER nobody
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["ssanet", "serve", "--host=0.0.0.0", "--model=/model.onnx"]
