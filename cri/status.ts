import { type ErrorKind, kindOf, messageOf } from '../src/errors.ts';
import { Code } from './grpc/codes.ts';

/** The one place where an error's kind becomes a gRPC code. */
const codes: Readonly<Record<ErrorKind, Code>> = {
  invalid: Code.INVALID_ARGUMENT,
  notFound: Code.NOT_FOUND,
  alreadyExists: Code.ALREADY_EXISTS,
  precondition: Code.FAILED_PRECONDITION,
  unavailable: Code.UNAVAILABLE,
  // Only of UNKNOWN does the kubelet's client pass the bare message on, whose prefix the kubelet then
  // looks for (cri-client/pkg/remote_image.go, kubelet/images/image_manager.go).
  registryUnavailable: Code.UNKNOWN,
  signatureInvalid: Code.UNKNOWN,
  deadline: Code.DEADLINE_EXCEEDED,
  cancelled: Code.CANCELLED,
  unimplemented: Code.UNIMPLEMENTED,
  exhausted: Code.RESOURCE_EXHAUSTED,
  permission: Code.PERMISSION_DENIED,
  internal: Code.INTERNAL,
};

/** Headers hold a message; clients bound them, and the kubelet makes events of them. */
const MAX_MESSAGE = 8 * 1024;

/** What the caller is told of an error. */
export function toStatus(e: unknown): { code: Code; details: string } {
  const message = messageOf(e);
  return {
    code: codes[kindOf(e)],
    details: message.length > MAX_MESSAGE ? `${message.slice(0, MAX_MESSAGE)}…` : message,
  };
}
