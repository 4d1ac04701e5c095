import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import protobuf from 'protobufjs';

// Part of `npm run gen`: parses .proto files once, at build time, into what proto/codec.ts reads at each start.
const SETS: Readonly<Record<string, readonly string[]>> = {
  'api.json': ['cri.proto', 'berth.proto'],
  'shim.json': ['shim.proto'],
};

for (const [name, files] of Object.entries(SETS)) {
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) => join(import.meta.dirname, target);
  // keepCase: as the generated types have it.
  const set = root.loadSync([...files], { keepCase: true }).resolveAll();
  writeFileSync(join(import.meta.dirname, 'gen', name), JSON.stringify(set.toJSON()));
}
