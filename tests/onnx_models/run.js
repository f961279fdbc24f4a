// SPDX-License-Identifier: MIT
// Runs every model of a folder in ONNX Runtime, on the inputs that are there, and compares with the
// outputs: NODE_PATH=FOLDER_OF_MODULES node run.js FOLDER
"use strict";
const fs = require("fs");
const path = require("path");
const ort = require("onnxruntime-node");

const types = {
  float32: (data) => Float32Array.from(data),
  float64: (data) => Float64Array.from(data),
  int64: (data) => BigInt64Array.from(data, BigInt),
};
const tensor = ({ type, dims, data }) => new ort.Tensor(type, types[type](data), dims);

async function main(folder) {
  const { models } = JSON.parse(fs.readFileSync(path.join(folder, "models.json"), "utf8"));
  let count = 0;
  let failures = 0;
  let largest = 0;
  const complain = (file, what) => {
    failures += 1;
    console.error(`${file}: ${what}`);
  };
  for (const { file, tolerance, cases } of models) {
    const session = await ort.InferenceSession.create(path.join(folder, file)).catch((error) =>
      complain(file, error.message));
    if (!session) continue;
    for (const { inputs, output } of cases) {
      count += 1;
      const feeds = {};
      for (const [name, value] of Object.entries(inputs)) feeds[name] = tensor(value);
      let found;
      try {
        found = (await session.run(feeds)).output;
      } catch (error) {
        complain(file, error.message);
        continue;
      }
      if (found.dims.join() !== output.dims.join() || found.type !== output.type) {
        complain(file, `output must be ${output.type} [${output.dims}], got ${found.type} [${found.dims}]`);
        continue;
      }
      const size = output.data.reduce((most, number) => Math.max(most, Math.abs(number)), 1);
      let difference = 0;
      for (let i = 0; i < output.data.length; ++i) {
        const distance = Math.abs(found.data[i] - output.data[i]);
        difference = Math.max(difference, Number.isNaN(distance) ? Infinity : distance);
      }
      if (!(difference <= tolerance * size))
        complain(file, `[${output.dims}] differs by ${difference}, outputs are up to ${size}`);
      else largest = Math.max(largest, difference / size / tolerance);
    }
  }
  if (count === 0) complain(folder, "no case");
  console.log(`${models.length} models, ${count} runs by ONNX Runtime ${ort.env.versions.common}, ` +
    `${failures} failed; the largest difference is ${largest.toPrecision(2)} of what may be`);
  process.exit(failures === 0 ? 0 : 1);
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
