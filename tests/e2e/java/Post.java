import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;

/**
 * Java's own HTTP client with its default settings: every first request on a connection offers an
 * upgrade to HTTP/2 (h2c). Prints a line for each answer: its status, a space, its body.
 */
public class Post {
    private static final String BOUNDARY = "----callme-boundary";
    private static final HttpClient CLIENT = HttpClient.newHttpClient();

    public static void main(String[] arguments) throws IOException, InterruptedException {
        String url = arguments[0];
        for (String text : new String[] {"first", "second"}) {
            String json = "{\"input\":{\"text\":\"" + text + "\"}}";
            send(url + "/models/echo/predictions", "application/json", json.getBytes());
        }
        send(url + "/echo", "multipart/form-data; boundary=" + BOUNDARY, form(300_000));
    }

    private static void send(String url, String type, byte[] body)
            throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url))
                .header("Content-Type", type)
                .POST(BodyPublishers.ofByteArray(body))
                .build();
        HttpResponse<String> answer = CLIENT.send(request, BodyHandlers.ofString());
        System.out.println(answer.statusCode() + " " + answer.body());
    }

    /** A text and a file of so many bytes. */
    private static byte[] form(int fileBytes) throws IOException {
        ByteArrayOutputStream form = new ByteArrayOutputStream();
        String start = "--" + BOUNDARY + "\r\nContent-Disposition: form-data; name=";
        form.write((start + "\"text\"\r\n\r\nform\r\n").getBytes(StandardCharsets.UTF_8));
        form.write((start + "\"file\"; filename=\"a.bin\"\r\n\r\n").getBytes());
        form.write(new byte[fileBytes]);
        form.write(("\r\n--" + BOUNDARY + "--\r\n").getBytes());
        return form.toByteArray();
    }
}
