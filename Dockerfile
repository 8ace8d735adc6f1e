# satbench for the CPU: docker build --tag satbench . && docker run --rm satbench demo
FROM python:3.11-slim

WORKDIR /satbench
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu '.[pandas,plots]' \
    && useradd --create-home user

USER user
WORKDIR /home/user
ENV OMP_NUM_THREADS=1
ENTRYPOINT ["satbench"]
CMD ["--help"]
