import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type * as protobufjs from 'protobufjs';

// The parser that the daemon itself parses with: proto-loader's own copy.
const require = createRequire(createRequire(import.meta.url).resolve('@grpc/proto-loader'));
export const protobuf = require('protobufjs') as typeof protobufjs;

/** A field: number, type with its label, and what else holds for it. */
type Field = [number, string, ...string[]];
interface Rpc {
  request: string;
  response: string;
  /** Who streams. The fixture knows the response only: `true`. */
  streams?: true | string;
}
/** What a .proto file says, in the form of the fixture. */
export interface Facts {
  package: string;
  services: Record<string, Record<string, Rpc>>;
  messages: Record<string, Record<string, Field>>;
  enums: Record<string, Record<string, number>>;
}

const path = (file: string) => fileURLToPath(new URL(`../../${file}`, import.meta.url));

/** A table of facts below test/fixtures. */
export function readFixture<T>(name: string): T {
  return JSON.parse(readFileSync(path(`test/fixtures/${name}`), 'utf8')) as T;
}

/** One file with all that it imports, by its name below proto/. */
export function parse(file: string): protobufjs.Root {
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) => path(`proto/${target}`);
  return root.loadSync(file, { keepCase: true, alternateCommentMode: true }).resolveAll() as protobufjs.Root;
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

/**
 * Everything that a package declares, nested declarations by their dotted names.
 *
 * @param prefix what names of the package are written without; empty: they are written in full
 */
export function readFacts(root: protobufjs.Root, packageName: string, prefix = `${packageName}.`): Facts {
  const facts: Facts = { package: packageName, services: {}, messages: {}, enums: {} };
  const name = (o: protobufjs.ReflectionObject) => o.fullName.slice(1 + prefix.length);
  const entries = <T, U>(all: readonly T[], key: (t: T) => string, value: (t: T) => U) =>
    Object.fromEntries(all.map((t) => [key(t), value(t)]));
  const visit = (o: protobufjs.ReflectionObject): void => {
    if (o instanceof protobuf.Enum) facts.enums[name(o)] = { ...o.values };
    else if (o instanceof protobuf.Service) {
      facts.services[name(o)] = entries(
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

/** Full names of the services, RPCs, messages and enums that nothing is said about. */
export function uncommented(namespace: protobufjs.NamespaceBase): string[] {
  return namespace.nestedArray.flatMap((o) => {
    const inner: protobufjs.ReflectionObject[] = o instanceof protobuf.Service ? o.methodsArray : [];
    const silent = [o, ...inner].filter((x) => !/\w{3}.*\.$/s.test(x.comment ?? '')).map((x) => x.fullName);
    return o instanceof protobuf.Type ? [...silent, ...uncommented(o)] : silent;
  });
}
