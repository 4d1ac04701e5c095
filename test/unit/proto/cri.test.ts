import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type * as protobufjs from 'protobufjs';
import { describe, expect, it } from 'vitest';
import { loadProtos } from '../../../proto/load.ts';

// The parser that the daemon itself parses with: proto-loader's own copy.
const require = createRequire(createRequire(import.meta.url).resolve('@grpc/proto-loader'));
const protobuf = require('protobufjs') as typeof protobufjs;

/** A field: number, type with its label, and what else holds for it. */
type Field = [number, string, ...string[]];
interface Rpc {
  request: string;
  response: string;
  /** Who streams. The fixture knows the response only: `true`. */
  streams?: true | string;
}
/** What a .proto file says, in the form of the fixture. */
interface Facts {
  package: string;
  services: Record<string, Record<string, Rpc>>;
  messages: Record<string, Record<string, Field>>;
  enums: Record<string, Record<string, number>>;
}

const path = (file: string) => fileURLToPath(new URL(`../../../${file}`, import.meta.url));
const fixture = JSON.parse(readFileSync(path('test/fixtures/cri-v1.json'), 'utf8')) as Facts;

function parse(file: string): protobufjs.Root {
  const { root } = protobuf.parse(readFileSync(path(file), 'utf8'), new protobuf.Root(), {
    keepCase: true,
    alternateCommentMode: true,
  });
  return root.resolveAll() as protobufjs.Root;
}

function fieldFacts(field: protobufjs.Field, name: (o: protobufjs.ReflectionObject) => string): Field {
  const type = field.resolvedType === null ? field.type : name(field.resolvedType);
  const facts: Field = [field.id, type];
  if (field instanceof protobuf.MapField) facts[1] = `map<${field.keyType},${type}>`;
  else if (field.repeated) facts[1] = `repeated ${type}`;
  if (field.options?.proto3_optional) facts.push('optional');
  else if (field.partOf !== null) facts.push('oneof');
  if (field.options?.deprecated) facts.push('deprecated');
  return facts;
}

function rpcFacts(method: protobufjs.Method, name: (o: protobufjs.ReflectionObject) => string): Rpc {
  const { resolvedRequestType: request, resolvedResponseType: response } = method;
  if (request === null || response === null) throw new Error(`${method.name}: unresolved type`);
  const rpc: Rpc = { request: name(request), response: name(response) };
  if (method.requestStream) rpc.streams = 'request';
  else if (method.responseStream) rpc.streams = true;
  return rpc;
}

/** Everything that a package declares, nested declarations by their dotted names. */
function readFacts(root: protobufjs.Root, packageName: string): Facts {
  const facts: Facts = { package: packageName, services: {}, messages: {}, enums: {} };
  const name = (o: protobufjs.ReflectionObject) => o.fullName.slice(`.${packageName}.`.length);
  const entries = <T, U>(all: readonly T[], key: (t: T) => string, value: (t: T) => U) =>
    Object.fromEntries(all.map((t) => [key(t), value(t)]));
  const visit = (o: protobufjs.ReflectionObject): void => {
    if (o instanceof protobuf.Enum) facts.enums[name(o)] = { ...o.values };
    else if (o instanceof protobuf.Service) {
      facts.services[o.name] = entries(
        o.methodsArray,
        (m) => m.name,
        (m) => rpcFacts(m, name),
      );
    } else if (o instanceof protobuf.Type) {
      facts.messages[name(o)] = entries(
        o.fieldsArray,
        (f) => f.name,
        (f) => fieldFacts(f, name),
      );
      o.nestedArray.forEach(visit);
    }
  };
  const namespace = root.lookup(packageName);
  if (!(namespace instanceof protobuf.Namespace)) throw new Error(`no package ${packageName}`);
  namespace.nestedArray.forEach(visit);
  return facts;
}

const cri = parse('proto/cri.proto');
const berth = parse('proto/berth.proto');
const facts = readFacts(cri, 'runtime.v1');

describe('cri.proto against CRI v1 of Kubernetes 1.36', () => {
  it('is compared with the whole protocol', () => {
    const rpcs = Object.values(fixture.services).flatMap((s) => Object.keys(s));
    expect(fixture.package).toBe('runtime.v1');
    expect(Object.keys(fixture.services)).toEqual(['RuntimeService', 'ImageService']);
    expect(rpcs).toHaveLength(41);
    expect(Object.keys(fixture.messages)).toHaveLength(170);
  });

  it('has its RPCs, with their requests, responses and streams, and no others', () => {
    expect(facts.services).toEqual(fixture.services);
  });

  it('has its messages, with the names, numbers, types and labels of their fields, and no others', () => {
    expect(facts.messages).toEqual(fixture.messages);
  });

  it('has its enums with their values, and no others', () => {
    expect(facts.enums).toEqual(fixture.enums);
  });

  it.each(['RuntimeService', 'ImageService'] as const)('is what %s is served by', (service) => {
    const { runtimeService, imageService } = loadProtos();
    const definition = service === 'RuntimeService' ? runtimeService : imageService;
    const served = Object.values(definition).map((m) => [m.path, m.requestStream, m.responseStream]);
    const wanted = Object.entries(fixture.services[service] ?? {}).map(([name, rpc]) => [
      `/runtime.v1.${service}/${name}`,
      false,
      rpc.streams === true,
    ]);
    expect(served).toEqual(wanted);
  });
});

/** Full names of the services, RPCs, messages and enums that nothing is said about. */
function uncommented(namespace: protobufjs.NamespaceBase): string[] {
  return namespace.nestedArray.flatMap((o) => {
    const inner: protobufjs.ReflectionObject[] = o instanceof protobuf.Service ? o.methodsArray : [];
    const silent = [o, ...inner].filter((x) => !/\w{3}.*\.$/s.test(x.comment ?? '')).map((x) => x.fullName);
    return o instanceof protobuf.Type ? [...silent, ...uncommented(o)] : silent;
  });
}

describe.each([
  ['cri.proto', cri, 'runtime.v1', 41],
  ['berth.proto', berth, 'berth.v1', 3],
] as const)('the comments of %s', (_file, root, packageName, rpcs) => {
  it('say something about every service, RPC, message and enum', () => {
    const namespace = root.lookup(packageName) as protobufjs.Namespace;
    const services = namespace.nestedArray.filter((o) => o instanceof protobuf.Service);
    expect(services.flatMap((s) => s.methodsArray)).toHaveLength(rpcs);
    expect(uncommented(namespace)).toEqual([]);
  });
});
