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
  nameAbsolutely(set);
  writeFileSync(join(import.meta.dirname, 'gen', name), JSON.stringify(set.toJSON()));
}

/** So that a message can be taken out of its set without a search for what its fields refer to. */
function nameAbsolutely(object: protobuf.ReflectionObject): void {
  if (object instanceof protobuf.Type)
    for (const field of object.fieldsArray) field.type = field.resolvedType?.fullName ?? field.type;
  if (object instanceof protobuf.Service) {
    for (const method of object.methodsArray) {
      method.requestType = method.resolvedRequestType?.fullName ?? method.requestType;
      method.responseType = method.resolvedResponseType?.fullName ?? method.responseType;
    }
  }
  if (object instanceof protobuf.Namespace) for (const nested of object.nestedArray) nameAbsolutely(nested);
}
